/* SPDX-License-Identifier: Apache-2.0 */
/* The CNI plugin on a node without Python: starts the interpreter that lies beside it.
 *
 *     <bin dir>/vxlane            this program
 *     <bin dir>/.vxlane/current   -> the directory of one version, which holds
 *         ld.so lib/ python       the interpreter with all it needs of a C library
 *         start plugin            the first code that Python runs, and the plugin's modules
 *
 * It is linked statically, and what it starts takes nothing of the host's: no shell, no library, no
 * cache of the loader. The link is read once, so an upgrade meanwhile changes nothing of this call.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define START_MOST 8192 /* bytes of the code; Linux takes 128 kB as one argument */

static char directory[PATH_MAX];

/* The error of a CNI plugin (spec 1.1.0, "Error"), for the runtime's log. */
static int fail(const char *what)
{
	printf("{\"cniVersion\":\"1.0.0\",\"code\":5,\"msg\":\"vxlane: %s; run vxlane install "
	       "again\"}\n",
	       what);
	return 1;
}

static int find_directory(void)
{
	ssize_t length = readlink("/proc/self/exe", directory, sizeof(directory) - 1);
	char version[NAME_MAX + 1];
	char *end;

	if (length < 0)
		return -1;
	directory[length] = 0;
	end = strrchr(directory, '/');
	if (!end || end + sizeof("/.vxlane/current") > directory + sizeof(directory))
		return -1;
	strcpy(end, "/.vxlane/current");
	length = readlink(directory, version, sizeof(version) - 1);
	if (length < 0)
		return -1;
	version[length] = 0;
	end = strrchr(directory, '/') + 1;
	if (end + length >= directory + sizeof(directory))
		return -1;
	strcpy(end, version);
	return 0;
}

static const char *path_of(const char *name)
{
	char *path;

	if (asprintf(&path, "%s/%s", directory, name) < 0)
		exit(fail("no memory"));
	return path;
}

static int read_start(char *start, size_t size)
{
	int file = open(path_of("start"), O_RDONLY | O_CLOEXEC);
	ssize_t length = file < 0 ? -1 : read(file, start, size - 1);

	if (length <= 0)
		return -1;
	start[length] = 0;
	return 0;
}

int main(void)
{
	static char start[START_MOST];

	if (find_directory() || read_start(start, sizeof(start)))
		return fail("the interpreter beside it is missing");
	/* A runtime's own preferences would have this loader load the host's libraries. */
	unsetenv("LD_PRELOAD");
	unsetenv("LD_AUDIT");
	/* Python would look for a locale of the host in place of C; -X utf8 decides already. */
	setenv("LC_ALL", "C", 1);
	const char *loader = path_of("ld.so");
	const char *argv[] = {loader,
			      "--inhibit-cache",
			      "--library-path",
			      path_of("lib"),
			      path_of("python"),
			      "-X",
			      "utf8",
			      "-ISc",
			      start,
			      path_of("plugin"),
			      NULL};
	execv(loader, (char *const *)argv);
	return fail("the interpreter beside it can't be started");
}
