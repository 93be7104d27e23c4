/* What the engine proc puts between a program and the C library (LD_PRELOAD): a clock that can be wrong and syncs that can be slow, fail or
   lie. It reads a page that the engine writes while the program runs; the file is named by CHAOS_SHIM. The layout is that of shim.rs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct page {
    volatile int64_t step_ns;        /* added to the wall clock */
    volatile int64_t rate_per_mille; /* speed of the wall clock; 0 and 1000 are right */
    volatile int64_t since_ns;       /* true wall clock from which the rate counts */
    volatile int64_t sync_delay_us;  /* added to each sync */
    volatile int64_t sync_lies;      /* syncs answer and do nothing */
    volatile int64_t sync_fails;     /* so many syncs fail with EIO */
};

static struct page right = {0, 1000, 0, 0, 0, 0};
static struct page *page = &right;
static int (*real_clock)(clockid_t, struct timespec *);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);

__attribute__((constructor)) static void begin(void) {
    real_clock = dlsym(RTLD_NEXT, "clock_gettime");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    const char *path = getenv("CHAOS_SHIM");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *at = mmap(0, sizeof(struct page), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (at != MAP_FAILED) page = at;
}

static int64_t wrong(int64_t now) {
    int64_t rate = page->rate_per_mille;
    if (rate != 0 && rate != 1000) now += (now - page->since_ns) / 1000 * (rate - 1000);
    return now + page->step_ns;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    /* Others may ask before begin() has run. */
    if (!real_clock) real_clock = dlsym(RTLD_NEXT, "clock_gettime");
    int answer = real_clock(clock, time);
    if (answer == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t now = wrong((int64_t)time->tv_sec * 1000000000 + time->tv_nsec);
        time->tv_sec = now / 1000000000;
        time->tv_nsec = now % 1000000000;
    }
    return answer;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}

static int faulty(int (*real)(int), int file) {
    if (page->sync_delay_us > 0) usleep((useconds_t)page->sync_delay_us);
    if (page->sync_lies) return 0;
    int64_t fails = page->sync_fails;
    if (fails > 0 && __atomic_compare_exchange_n(&page->sync_fails, &fails, fails - 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        errno = EIO;
        return -1;
    }
    return real(file);
}

int fsync(int file) { return faulty(real_fsync, file); }
int fdatasync(int file) { return faulty(real_fdatasync, file); }
