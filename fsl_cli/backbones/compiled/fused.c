/* The arithmetic of fused.py, which says what it is: relu(batch norm) of images, max-pooled over 2 x 2 pixels where
   asked, with two derivatives.

   x, v, dx are (images, H, W, C) float, double or bfloat16, channels-last; so are y, g, dg, or (images, H / 2,
   W / 2, C) where pooled. The first k images give the statistics. A pass goes over parts of the images, which threads
   share, and in them over rows: of pixels, or of windows where pooled. Sums go over some rows, of TOGETHER pixels or
   so, in REAL and from there into double, and over the parts in their order: they are the same to the last bit however
   many threads there are. */

#ifndef REAL /* this file includes itself, for each type of number */

#include <math.h>
#include <string.h>

#ifdef _OPENMP
int parallel(void) { return 1; }
#else
int parallel(void) { return 0; }
#endif

#define PARTS 8
#define TOGETHER 64

typedef struct {
    long images, k, H, W, C, pool, threads;
} Sizes;

static inline float from_bfloat16(unsigned short a) {
    unsigned bits = (unsigned)a << 16;
    float b;
    memcpy(&b, &bits, sizeof b);
    return b;
}

static inline unsigned short to_bfloat16(float a) { /* the nearest, or the even one of two */
    unsigned bits;
    memcpy(&bits, &a, sizeof bits);
    unsigned rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16, none = bits >> 16 | 0x40;
    return a != a ? none : rounded;
}

#define AS_IT_IS(a) (a)
#define REAL float /* what is computed in, and the type of weights and statistics */
#define NUMBER unsigned short
#define NAMED(name) name##_bfloat16
#define LOAD from_bfloat16
#define STORE to_bfloat16
#include "fused.c"
#undef NUMBER
#undef NAMED
#undef LOAD
#undef STORE
#define LOAD AS_IT_IS
#define STORE AS_IT_IS
#define NUMBER float
#define NAMED(name) name##_float
#include "fused.c"
#undef REAL
#undef NUMBER
#undef NAMED
#define REAL double
#define NUMBER double
#define NAMED(name) name##_double
#include "fused.c"
#undef REAL
#undef NUMBER
#undef NAMED
#undef LOAD
#undef STORE

#else

#define Job NAMED(Job)
#define Kernel NAMED(Kernel)
#define pass NAMED(pass)
#define clear NAMED(clear)
#define total NAMED(total)
#define choose NAMED(choose)

/* the one of a window's four that is the greatest elsewhere */
static inline REAL choose(REAL a0, REAL a1, REAL a2, REAL a3, int right, int low_right, int low) {
    REAL above = right ? a1 : a0, below = low_right ? a3 : a2;
    return low ? below : above;
}

typedef struct {
    const NUMBER *x, *g, *v;
    const REAL *stats, *factor; /* stats: 4 rows of C: mean, r, scale = w r, shift = b - mean scale */
    NUMBER *y, *dx, *dg;
    double *sums; /* for each part 3 C, and room for as many REALs */
    Sizes size;
} Job;

/* A row for a kernel: `at` is where it begins in x, `out` in y; `first`: whether its image gives statistics. Kernels
   are inlined with C, which RUN makes a constant where it is usual, so that the loops over channels unroll. */
#define KERNEL(name)                                                                                                   \
    static inline __attribute__((always_inline)) void NAMED(name)(const Job *job, long at, long out,                   \
                                                                  REAL *restrict s, long first, long C)
#define VIEW                                                                                                           \
    const NUMBER *x = job->x + at;                                                                                     \
    const REAL *mean = job->stats, *scale = job->stats + 2 * C, *shift = job->stats + 3 * C;                          \
    const long W = job->size.W;                                                                                        \
    (void)x, (void)mean, (void)scale, (void)shift, (void)W, (void)s, (void)first
#define EACH _Pragma("GCC ivdep") for (long c = 0; c < C; c++) /* nothing overlaps */
#define PIXELS for (long p = 0; p < W * C; p += C)
#define WINDOWS                                                                                                        \
    for (long p = 0, p1 = C, p2 = W * C, p3 = p2 + C, o = 0; o < W / 2 * C;                                            \
         p += 2 * C, p1 += 2 * C, p2 += 2 * C, p3 += 2 * C, o += C)
/* z is the norm's output; of a window's four the first greatest counts. No branches, so that compilers vectorise. */
#define Z(p) (LOAD(x[p + c]) * scale[c] + shift[c])
#define GREATEST                                                                                                       \
    REAL z0 = Z(p), z1 = Z(p1), z2 = Z(p2), z3 = Z(p3);                                                               \
    REAL up = z1 > z0 ? z1 : z0, down = z3 > z2 ? z3 : z2, z = down > up ? down : up
#define CHOSEN(from)                                                                                                   \
    choose(LOAD(from[p + c]), LOAD(from[p1 + c]), LOAD(from[p2 + c]), LOAD(from[p3 + c]), z1 > z0, z3 > z2, down > up)
#define NO_NUMBER(a) ((a) != (a))

KERNEL(moments) { /* of x less the very first pixel, so that nothing cancels */
    VIEW;
    PIXELS EACH {
        REAL d = LOAD(x[p + c]) - LOAD(job->x[c]);
        s[c] += d;
        s[C + c] += d * d;
    }
}

KERNEL(activate) {
    VIEW;
    NUMBER *y = job->y + out;
    PIXELS EACH {
        REAL z = Z(p);
        z = z <= 0 ? 0 : z; /* not z > 0, so that what is no number stays visible */
        y[p + c] = STORE(z);
    }
}

KERNEL(activate_pooled) {
    VIEW;
    NUMBER *y = job->y + out;
    WINDOWS EACH {
        GREATEST;
        REAL any = z0 + z1 + z2 + z3;
        z = z <= 0 ? 0 : z;
        y[o + c] = STORE(NO_NUMBER(any) ? any : z);
    }
}

/* h is g where it came from; first sums of h and h (x - mean), then dx = scale h + (x - mean) f0 + f1 */
KERNEL(backward_sums) {
    VIEW;
    const NUMBER *g = job->g + out;
    PIXELS EACH {
        REAL h = LOAD(g[p + c]);
        h = Z(p) <= 0 ? 0 : h;
        s[c] += h;
        s[C + c] += h * (LOAD(x[p + c]) - mean[c]);
    }
}

KERNEL(backward_sums_pooled) {
    VIEW;
    const NUMBER *g = job->g + out;
    WINDOWS EACH {
        GREATEST;
        REAL h = LOAD(g[o + c]);
        h = z <= 0 ? 0 : h;
        s[c] += h;
        s[C + c] += h * (CHOSEN(x) - mean[c]);
    }
}

#define BACK(p, h) dx[p + c] = STORE((h) * scale[c] + first * ((LOAD(x[p + c]) - mean[c]) * f0[c] + f1[c]))

KERNEL(backward) {
    VIEW;
    const NUMBER *g = job->g + out;
    const REAL *f0 = job->factor, *f1 = f0 + C;
    NUMBER *dx = job->dx + at;
    PIXELS EACH {
        REAL h = LOAD(g[p + c]);
        h = Z(p) <= 0 ? 0 : h;
        BACK(p, h);
    }
}

KERNEL(backward_pooled) {
    VIEW;
    const NUMBER *g = job->g + out;
    const REAL *f0 = job->factor, *f1 = f0 + C;
    NUMBER *dx = job->dx + at;
    WINDOWS EACH {
        GREATEST;
        REAL h = LOAD(g[o + c]);
        h = z <= 0 ? 0 : h;
        REAL above = down > up ? 0 : h, below = down > up ? h : 0;
        BACK(p, z1 > z0 ? 0 : above);
        BACK(p1, z1 > z0 ? above : 0);
        BACK(p2, z3 > z2 ? 0 : below);
        BACK(p3, z3 > z2 ? below : 0);
    }
}

KERNEL(backward_outside) { /* a pixel that no window covers */
    VIEW;
    const REAL *f0 = job->factor, *f1 = f0 + C;
    NUMBER *dx = job->dx + at;
    EACH BACK(0, 0);
}

/* sums of v and v (x - mean) where there are statistics, and of v h; then dg = scale v + (x - mean) f0 + f1 where g
   came from, dx = f0 h + f2 v + (x - mean) f3 + f4 */
#define SUM(p) s[c] += first * LOAD(v[p + c]), s[C + c] += first * LOAD(v[p + c]) * (LOAD(x[p + c]) - mean[c])

KERNEL(second_sums) {
    VIEW;
    const NUMBER *g = job->g + out, *v = job->v + at;
    PIXELS EACH {
        REAL h = LOAD(g[p + c]);
        h = Z(p) <= 0 ? 0 : h;
        SUM(p);
        s[2 * C + c] += h * LOAD(v[p + c]);
    }
}

KERNEL(second_sums_pooled) {
    VIEW;
    const NUMBER *g = job->g + out, *v = job->v + at;
    WINDOWS EACH {
        GREATEST;
        REAL h = LOAD(g[o + c]);
        h = z <= 0 ? 0 : h;
        SUM(p), SUM(p1), SUM(p2), SUM(p3);
        s[2 * C + c] += h * CHOSEN(v);
    }
}

KERNEL(second_sums_outside) {
    VIEW;
    const NUMBER *v = job->v + at;
    EACH {
        SUM(0);
    }
}

#define AGAIN(p, h)                                                                                                    \
    dx[p + c] = STORE((h) * f0[c] + first * (LOAD(v[p + c]) * f2[c] + (LOAD(x[p + c]) - mean[c]) * f3[c] + f4[c]))
#define SECOND                                                                                                         \
    const NUMBER *g = job->g + out, *v = job->v + at;                                                                  \
    const REAL *f0 = job->factor, *f1 = f0 + C, *f2 = f1 + C, *f3 = f2 + C, *f4 = f3 + C;                             \
    NUMBER *dx = job->dx + at, *dg = job->dg + out;                                                                    \
    (void)g, (void)dg, (void)f1

KERNEL(second) {
    VIEW;
    SECOND;
    PIXELS EACH {
        REAL z = Z(p), h = LOAD(g[p + c]), t = LOAD(v[p + c]) * scale[c] + (LOAD(x[p + c]) - mean[c]) * f0[c] + f1[c];
        h = z <= 0 ? 0 : h;
        t = z <= 0 ? 0 : t;
        dg[p + c] = STORE(t);
        AGAIN(p, h);
    }
}

KERNEL(second_pooled) {
    VIEW;
    SECOND;
    WINDOWS EACH {
        GREATEST;
        REAL h = LOAD(g[o + c]), t = CHOSEN(v) * scale[c] + (CHOSEN(x) - mean[c]) * f0[c] + f1[c];
        h = z <= 0 ? 0 : h;
        t = z <= 0 ? 0 : t;
        dg[o + c] = STORE(t);
        REAL above = down > up ? 0 : h, below = down > up ? h : 0;
        AGAIN(p, z1 > z0 ? 0 : above);
        AGAIN(p1, z1 > z0 ? above : 0);
        AGAIN(p2, z3 > z2 ? 0 : below);
        AGAIN(p3, z3 > z2 ? below : 0);
    }
}

KERNEL(second_outside) {
    VIEW;
    SECOND;
    EACH AGAIN(0, 0);
}

KERNEL(nothing) { (void)job, (void)at, (void)out, (void)s, (void)first, (void)C; }

typedef void Kernel(const Job *, long, long, REAL *, long, long);

/* One part of a pass, with so many sums for each channel: `rows` over rows of pixels, or of windows, and then `outside`
   over the pixels that no window covers. */
static inline __attribute__((always_inline)) void pass(const Job *job, long part, long last, long C, long summing,
                                                       long windows, Kernel *rows, Kernel *outside) {
    const long H = job->size.H, W = job->size.W, side = windows ? 2 : 1, end = (part + 1) * job->size.images / PARTS;
    double *sums = job->sums + part * 6 * C;
    REAL *s = (REAL *)(sums + 3 * C);
    long pixels = 0; /* in s */
    memset(s, 0, summing * C * sizeof *s);
    for (long i = part * job->size.images / PARTS; i < (end < last ? end : last); i++) {
        long first = i < job->size.k, image = i * H * W * C, small = i * (H / side) * (W / side) * C;
        for (long row = 0; row < (H + side - 1) / side; row++) {
            long at = image + row * side * W * C;
            if (row < H / side)
                rows(job, at, small + row * (W / side) * C, s, first, C);
            for (long p = 0; windows && p < 2 * W && at + p * C < image + H * W * C; p++)
                if (p % W >= W / 2 * 2 || row == H / 2)
                    outside(job, at + p * C, 0, s, first, C);
            if (!summing || (pixels += side * W) < TOGETHER)
                continue;
            for (long c = 0; c < summing * C; c++)
                sums[c] += s[c], s[c] = 0;
            pixels = 0;
        }
    }
    for (long c = 0; c < summing * C; c++)
        sums[c] += s[c];
}

#define RUN(last, summing, windows, rows, outside)                                                                     \
    _Pragma("omp parallel for num_threads(job.size.threads) if (job.size.threads > 1)") for (long part = 0;            \
                                                                                             part < PARTS; part++) {   \
        if (job.size.C == 64 && sizeof(REAL) == sizeof(float))                                                         \
            pass(&job, part, last, 64, summing, windows, rows, outside);                                               \
        else if (job.size.C == 32 && sizeof(REAL) == sizeof(float))                                                    \
            pass(&job, part, last, 32, summing, windows, rows, outside);                                               \
        else                                                                                                           \
            pass(&job, part, last, job.size.C, summing, windows, rows, outside);                                       \
    }

static void clear(const Job *job) {
    for (long part = 0; part < PARTS; part++)
        memset(job->sums + part * 6 * job->size.C, 0, 3 * job->size.C * sizeof(double));
}

static double total(const Job *job, long which, long c) {
    double sum = 0;
    for (long part = 0; part < PARTS; part++)
        sum += job->sums[part * 6 * job->size.C + which * job->size.C + c];
    return sum;
}

void NAMED(norm_forward)(const NUMBER *x, const REAL *w, const REAL *b, NUMBER *y, REAL *stats, double *work,
                         Sizes *size, double eps) {
    Job job = {.x = x, .y = y, .stats = stats, .sums = work, .size = *size};
    long C = size->C, n = size->k * size->H * size->W;
    clear(&job);
    RUN(size->k, 2, 0, NAMED(moments), NAMED(nothing))
    for (long c = 0; c < C; c++) {
        double d = total(&job, 0, c) / n, var = total(&job, 1, c) / n - d * d;
        double inverse = 1 / sqrt((var < 0 ? 0 : var) + eps);
        stats[c] = LOAD(x[c]) + d;
        stats[C + c] = inverse;
        stats[2 * C + c] = w[c] * inverse;
        stats[3 * C + c] = b[c] - (LOAD(x[c]) + d) * w[c] * inverse;
    }
    if (size->pool)
        RUN(size->images, 0, 1, NAMED(activate_pooled), NAMED(nothing))
    else
        RUN(size->images, 0, 0, NAMED(activate), NAMED(nothing))
}

void NAMED(norm_backward)(const NUMBER *g, const NUMBER *x, const REAL *stats, NUMBER *dx, REAL *dw, REAL *db,
                          double *work, Sizes *size) {
    long C = size->C, n = size->k * size->H * size->W;
    REAL *f0 = (REAL *)(work + PARTS * 6 * C), *f1 = f0 + C;
    Job job = {.x = x, .g = g, .dx = dx, .stats = stats, .factor = f0, .sums = work, .size = *size};
    clear(&job);
    if (size->pool)
        RUN(size->images, 2, 1, NAMED(backward_sums_pooled), NAMED(nothing))
    else
        RUN(size->images, 2, 0, NAMED(backward_sums), NAMED(nothing))
    for (long c = 0; c < C; c++) {
        double sum = total(&job, 0, c), product = total(&job, 1, c), r = stats[C + c], scale = stats[2 * C + c];
        db[c] = sum;
        dw[c] = product * r;
        f0[c] = -scale * r * r * product / n;
        f1[c] = -scale * sum / n;
    }
    if (size->pool)
        RUN(size->images, 0, 1, NAMED(backward_pooled), NAMED(backward_outside))
    else
        RUN(size->images, 0, 0, NAMED(backward), NAMED(nothing))
}

void NAMED(norm_second)(const NUMBER *v, const REAL *a, const REAL *b, const NUMBER *g, const NUMBER *x,
                        const REAL *w, const REAL *stats, const REAL *dw, const REAL *db, NUMBER *dg, NUMBER *dx,
                        REAL *ddw, double *work, Sizes *size) {
    long C = size->C, n = size->k * size->H * size->W;
    REAL *f0 = (REAL *)(work + PARTS * 6 * C), *f1 = f0 + C, *f2 = f1 + C, *f3 = f2 + C, *f4 = f3 + C;
    Job job = {.x = x, .g = g, .v = v, .dx = dx, .dg = dg, .stats = stats, .factor = f0, .sums = work, .size = *size};
    clear(&job);
    if (size->pool)
        RUN(size->images, 3, 1, NAMED(second_sums_pooled), NAMED(second_sums_outside))
    else
        RUN(size->images, 3, 0, NAMED(second_sums), NAMED(nothing))
    for (long c = 0; c < C; c++) {
        double r = stats[C + c], v0 = total(&job, 0, c), v1 = total(&job, 1, c) * r;
        double q = total(&job, 2, c) - (db[c] * v0 + dw[c] * v1) / n;
        double alpha = a[c] - w[c] * r * v1 / n, beta = -w[c] * r * dw[c] / n;
        ddw[c] = r * q;
        f0[c] = r * alpha;
        f1[c] = b[c] - w[c] * r * v0 / n;
        f2[c] = r * beta;
        f3[c] = -r * (r * (alpha * dw[c] + beta * v1) + w[c] * q * r * r) / n;
        f4[c] = -r * (alpha * db[c] + beta * v0) / n;
    }
    if (size->pool)
        RUN(size->images, 0, 1, NAMED(second_pooled), NAMED(second_outside))
    else
        RUN(size->images, 0, 0, NAMED(second), NAMED(nothing))
}

#endif
