/* First and only process of the emulated machine: runs the program whose arguments are the NUL-terminated strings of
   /arguments, copies what it prints to port 0xe9, which Bochs prints, then its exit code, and turns the machine off. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *text, size_t count)
{
    while (count--)
        outb(*text++, 0xe9);
}

static void run(void)
{
    static char text[1 << 16];
    static char *arguments[1024];
    char *environment[] = {"PATH=/bin:/usr/bin", "TMPDIR=/tmp", "RUST_BACKTRACE=1", NULL};
    int file = open("/arguments", O_RDONLY);
    ssize_t count = read(file, text, sizeof text - 1);
    int at = 0;
    for (char *next = text; next < text + count && at < 1023; next += strlen(next) + 1)
        arguments[at++] = next;
    execve(arguments[0], arguments, environment);
    perror(arguments[0]);
    _exit(127);
}

int main(void)
{
    static char buffer[1 << 16];
    int ends[2], status = 0;
    iopl(3);
    mkdir("/proc", 0755);
    mkdir("/dev", 0755);
    mkdir("/tmp", 01777);
    mount("none", "/proc", "proc", 0, "");
    mount("none", "/dev", "devtmpfs", 0, "");
    pipe(ends);
    /* The kernel and the ROM may have said things before. */
    say("\x01" "begin\x02", 7);
    if (fork() == 0) {
        dup2(open("/dev/null", O_RDONLY), 0);
        dup2(ends[1], 1);
        dup2(ends[1], 2);
        close(ends[0]);
        close(ends[1]);
        run();
    }
    close(ends[1]);
    for (ssize_t got; (got = read(ends[0], buffer, sizeof buffer)) > 0;)
        say(buffer, got);
    wait(&status);
    int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    say(buffer, snprintf(buffer, sizeof buffer, "\x01" "end %d\x02", code));
    /* Bochs ends when it reads this. */
    for (const char *at = "Shutdown"; *at; at++)
        outb(*at, 0x8900);
    for (;;)
        pause();
}
