/* The arithmetic of fused.py, which says what it is: relu(batch norm) of rows of channels and its two derivatives.

   x, g, v and the results are (rows, C) float: channels-last images. The first `n` rows give the statistics.
   Sums go over short blocks of rows in float and from there into double. Large inputs are shared by threads. */

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 128                /* rows */
#define SHARE (1L << 19)         /* numbers that are worth a thread */
#define MOST 64                  /* threads */
#define EACH _Pragma("GCC ivdep") for (long c = 0; c < C; c++) /* nothing overlaps */

typedef struct Job {
    void (*work)(struct Job *);
    const float *x, *g, *v, *scale, *shift, *mean;
    float *out, *out2, *table;   /* table: rows of C coefficients, one row a letter in the formulas */
    double *sums;                /* of this thread: 3 rows of C */
    long C, n, from, to;
} Job;

static void *run(void *job) {
    ((Job *)job)->work(job);
    return 0;
}

/* Rows 0..rows-1 in parts; the parts' sums are added up in order into the first one's. */
static void share(Job *job, void (*work)(Job *), long rows, int threads, double *sums) {
    Job jobs[MOST];
    pthread_t ids[MOST];
    int started[MOST];
    long C = job->C, parts = 1 + rows * C / SHARE;
    if (parts > threads) parts = threads;
    if (parts > MOST) parts = MOST;
    memset(sums, 0, parts * 3 * C * sizeof *sums);
    for (long i = parts - 1; i >= 0; i--) {
        jobs[i] = *job;
        jobs[i].work = work;
        jobs[i].from = rows * i / parts;
        jobs[i].to = rows * (i + 1) / parts;
        jobs[i].sums = sums + i * 3 * C;
        started[i] = i && !pthread_create(ids + i, 0, run, jobs + i);
        if (!started[i]) work(jobs + i);
    }
    for (long i = 1; i < parts; i++) {
        if (started[i]) pthread_join(ids[i], 0);
        for (long c = 0; c < 3 * C; c++) sums[c] += sums[i * 3 * C + c];
    }
}

/* ---- forward ---- */

static void moments(Job *j) { /* of x less its first row, so that nothing cancels */
    long C = j->C;
    float s[C], q[C];
    for (long row = j->from; row < j->to;) {
        long end = row + BLOCK < j->to ? row + BLOCK : j->to;
        memset(s, 0, sizeof s), memset(q, 0, sizeof q);
        for (; row < end; row++) {
            const float *x = j->x + row * C, *first = j->x;
            EACH { float d = x[c] - first[c]; s[c] += d; q[c] += d * d; }
        }
        EACH { j->sums[c] += s[c]; j->sums[C + c] += q[c]; }
    }
}

static void apply(Job *j) {
    long C = j->C;
    const float *scale = j->scale, *shift = j->shift;
    for (long row = j->from; row < j->to; row++) {
        const float *x = j->x + row * C;
        float *y = j->out + row * C;
        EACH { float z = x[c] * scale[c] + shift[c]; y[c] = z <= 0 ? 0 : z; } /* NaN stays NaN */
    }
}

/* stats: 4 rows of C: mean, r, scale = w r, shift = b - mean scale */
void norm_forward(const float *x, const float *w, const float *b, float *y, float *stats, long rows, long n, long C,
                  double eps, int threads) {
    double *sums = malloc(MOST * 3 * C * sizeof *sums);
    float *mean = stats, *r = stats + C, *scale = stats + 2 * C, *shift = stats + 3 * C;
    Job job = {.x = x, .C = C, .n = n, .out = y, .scale = scale, .shift = shift};
    share(&job, moments, n, threads, sums);
    EACH {
        double d = sums[c] / n, var = sums[C + c] / n - d * d;
        double inverse = 1 / sqrt((var < 0 ? 0 : var) + eps);
        mean[c] = x[c] + d;
        r[c] = inverse;
        scale[c] = w[c] * inverse;
        shift[c] = b[c] - (x[c] + d) * w[c] * inverse;
    }
    share(&job, apply, rows, threads, sums);
    free(sums);
}

/* ---- first derivative ---- */

static void gradient_sums(Job *j) { /* h, h (x - mean) */
    long C = j->C;
    const float *scale = j->scale, *shift = j->shift, *mean = j->mean;
    float s[C], q[C];
    for (long row = j->from; row < j->to;) {
        long end = row + BLOCK < j->to ? row + BLOCK : j->to;
        memset(s, 0, sizeof s), memset(q, 0, sizeof q);
        for (; row < end; row++) {
            const float *x = j->x + row * C, *g = j->g + row * C;
            EACH {
                float h = x[c] * scale[c] + shift[c] <= 0 ? 0 : g[c];
                s[c] += h;
                q[c] += h * (x[c] - mean[c]);
            }
        }
        EACH { j->sums[c] += s[c]; j->sums[C + c] += q[c]; }
    }
}

static void gradient(Job *j) {
    long C = j->C;
    const float *scale = j->scale, *shift = j->shift, *mean = j->mean, *f = j->table;
    for (long row = j->from; row < j->to; row++) {
        const float *x = j->x + row * C, *g = j->g + row * C;
        float *dx = j->out + row * C;
        EACH { float h = x[c] * scale[c] + shift[c] <= 0 ? 0 : g[c]; dx[c] = h * scale[c]; }
        if (row < j->n) {
            EACH dx[c] += (x[c] - mean[c]) * f[c] + f[C + c];
        }
    }
}

void norm_backward(const float *g, const float *x, const float *stats, float *dx, float *dw, float *db, long rows,
                   long n, long C, int threads) {
    double *sums = malloc(MOST * 3 * C * sizeof *sums);
    float *table = malloc(2 * C * sizeof *table);
    const float *r = stats + C, *scale = stats + 2 * C;
    Job job = {.x = x, .g = g, .C = C, .n = n, .out = dx, .table = table,
               .mean = stats, .scale = scale, .shift = stats + 3 * C};
    share(&job, gradient_sums, rows, threads, sums);
    EACH {
        db[c] = sums[c];
        dw[c] = sums[C + c] * r[c];
        table[c] = -(double)scale[c] * r[c] * r[c] * sums[C + c] / n;
        table[C + c] = -(double)scale[c] * sums[c] / n;
    }
    share(&job, gradient, rows, threads, sums);
    free(sums), free(table);
}

/* ---- second derivative ---- */

static void second_sums(Job *j) { /* v and v (x - mean) over the first n rows, v h over all */
    long C = j->C;
    const float *scale = j->scale, *shift = j->shift, *mean = j->mean;
    float s[C], q[C], p[C];
    for (long row = j->from; row < j->to;) {
        long end = row + BLOCK < j->to ? row + BLOCK : j->to;
        memset(s, 0, sizeof s), memset(q, 0, sizeof q), memset(p, 0, sizeof p);
        for (; row < end; row++) {
            const float *x = j->x + row * C, *g = j->g + row * C, *v = j->v + row * C;
            float inside = row < j->n;
            EACH {
                float h = x[c] * scale[c] + shift[c] <= 0 ? 0 : g[c], w = inside * v[c];
                s[c] += w;
                q[c] += w * (x[c] - mean[c]);
                p[c] += v[c] * h;
            }
        }
        EACH { j->sums[c] += s[c]; j->sums[C + c] += q[c]; j->sums[2 * C + c] += p[c]; }
    }
}

static void second(Job *j) {
    long C = j->C;
    const float *scale = j->scale, *shift = j->shift, *mean = j->mean;
    const float *k1 = j->table, *k2 = k1 + C, *e1 = k1 + 2 * C, *e2 = k1 + 3 * C, *e3 = k1 + 4 * C, *e4 = k1 + 5 * C;
    for (long row = j->from; row < j->to; row++) {
        const float *x = j->x + row * C, *g = j->g + row * C, *v = j->v + row * C;
        float *dg = j->out + row * C, *dx = j->out2 + row * C;
        EACH {
            int off = x[c] * scale[c] + shift[c] <= 0;
            float d = x[c] - mean[c], h = off ? 0 : g[c], k = v[c] * scale[c] + d * k1[c] + k2[c];
            dg[c] = off ? 0 : k;
            dx[c] = h * e1[c];
        }
        if (row < j->n) {
            EACH dx[c] += v[c] * e2[c] + (x[c] - mean[c]) * e3[c] + e4[c];
        }
    }
}

void norm_second(const float *v, const float *a, const float *b, const float *g, const float *x, const float *w,
                 const float *stats, const float *dw, const float *db, float *dg, float *dx, float *ddw, long rows,
                 long n, long C, int threads) {
    double *sums = malloc(MOST * 3 * C * sizeof *sums);
    float *table = malloc(6 * C * sizeof *table);
    Job job = {.x = x, .g = g, .v = v, .C = C, .n = n, .out = dg, .out2 = dx, .table = table,
               .mean = stats, .scale = stats + 2 * C, .shift = stats + 3 * C};
    share(&job, second_sums, rows, threads, sums);
    EACH {
        double r = stats[C + c], v0 = sums[c], v1 = sums[C + c] * r;
        double q = sums[2 * C + c] - (db[c] * v0 + dw[c] * v1) / n;
        double alpha = a[c] - w[c] * r * v1 / n, beta = -w[c] * r * dw[c] / n;
        ddw[c] = r * q;
        table[c] = r * alpha;
        table[C + c] = b[c] - w[c] * r * v0 / n;
        table[2 * C + c] = r * alpha;
        table[3 * C + c] = r * beta;
        table[4 * C + c] = -r * (r * (alpha * dw[c] + beta * v1) + w[c] * q * r * r) / n;
        table[5 * C + c] = -r * (alpha * db[c] + beta * v0) / n;
    }
    share(&job, second, rows, threads, sums);
    free(sums), free(table);
}
