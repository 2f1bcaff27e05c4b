/* The arithmetic of fused.py, which says what it is: relu(batch norm) of rows of channels and its two derivatives.

   x, g, v and the results are (rows, C) float: channels-last images. The first n rows give the statistics.
   Sums go over short blocks of rows in float and from there into double. One thread: the tasks share the cores. */

#include <math.h>
#include <string.h>

#define BLOCK 128 /* rows */
#define EACH _Pragma("GCC ivdep") for (long c = 0; c < C; c++) /* nothing overlaps */
#define MASKED (x[c] * scale[c] + shift[c] <= 0 ? 0 : g[c])    /* h; not > 0, so that NaN stays NaN */

static long end_of_block(long row, long rows) { return row + BLOCK < rows ? row + BLOCK : rows; }

/* stats: 4 rows of C: mean, r, scale = w r, shift = b - mean scale. Here and below, work: room for 3 C doubles,
   then 9 C floats. */
void norm_forward(const float *x, const float *w, const float *b, float *y, float *stats, double *work, long rows,
                  long n, long C, double eps) {
    const float *first = x; /* sums are of x less its first row, so that nothing cancels */
    float *mean = stats, *r = stats + C, *scale = stats + 2 * C, *shift = stats + 3 * C;
    double *sum = work, *square = work + C;
    float *s = (float *)(work + 3 * C), *q = s + C;
    memset(work, 0, 3 * C * sizeof *work);
    for (long row = 0; row < n;) {
        memset(s, 0, 2 * C * sizeof *s);
        for (long end = end_of_block(row, n); row < end; row++, x += C) {
            EACH { float d = x[c] - first[c]; s[c] += d; q[c] += d * d; }
        }
        EACH { sum[c] += s[c]; square[c] += q[c]; }
    }
    EACH {
        double d = sum[c] / n, var = square[c] / n - d * d;
        double inverse = 1 / sqrt((var < 0 ? 0 : var) + eps);
        mean[c] = first[c] + d;
        r[c] = inverse;
        scale[c] = w[c] * inverse;
        shift[c] = b[c] - (first[c] + d) * w[c] * inverse;
    }
    x = first;
    for (long row = 0; row < rows; row++, x += C, y += C) {
        EACH { float z = x[c] * scale[c] + shift[c]; y[c] = z <= 0 ? 0 : z; }
    }
}

void norm_backward(const float *g, const float *x, const float *stats, float *dx, float *dw, float *db, double *work,
                   long rows, long n, long C) {
    const float *mean = stats, *r = stats + C, *scale = stats + 2 * C, *shift = stats + 3 * C;
    double *sum = work, *product = work + C; /* of h, of h (x - mean) */
    float *s = (float *)(work + 3 * C), *q = s + C, *f1 = s + 3 * C, *f2 = s + 4 * C;
    memset(work, 0, 3 * C * sizeof *work);
    for (long row = 0; row < rows;) {
        memset(s, 0, 2 * C * sizeof *s);
        for (long end = end_of_block(row, rows); row < end; row++, x += C, g += C) {
            EACH { float h = MASKED; s[c] += h; q[c] += h * (x[c] - mean[c]); }
        }
        EACH { sum[c] += s[c]; product[c] += q[c]; }
    }
    EACH {
        db[c] = sum[c];
        dw[c] = product[c] * r[c];
        f1[c] = -(double)scale[c] * r[c] * r[c] * product[c] / n;
        f2[c] = -(double)scale[c] * sum[c] / n;
    }
    x -= rows * C, g -= rows * C;
    for (long row = 0; row < rows; row++, x += C, g += C, dx += C) {
        EACH dx[c] = MASKED * scale[c];
        if (row < n) {
            EACH dx[c] += (x[c] - mean[c]) * f1[c] + f2[c];
        }
    }
}

void norm_second(const float *v, const float *a, const float *b, const float *g, const float *x, const float *w,
                 const float *stats, const float *dw, const float *db, float *dg, float *dx, float *ddw, double *work,
                 long rows, long n, long C) {
    const float *mean = stats, *scale = stats + 2 * C, *shift = stats + 3 * C;
    double *sum = work, *product = work + C, *both = work + 2 * C; /* of v, v (x - mean) in the first n rows; of v h */
    float *s = (float *)(work + 3 * C), *q = s + C, *p = s + 2 * C;
    float *k1 = s + 3 * C, *k2 = s + 4 * C, *e1 = s + 5 * C, *e2 = s + 6 * C, *e3 = s + 7 * C, *e4 = s + 8 * C;
    memset(work, 0, 3 * C * sizeof *work);
    for (long row = 0; row < rows;) {
        memset(s, 0, 3 * C * sizeof *s);
        for (long end = end_of_block(row, rows); row < end; row++, x += C, g += C, v += C) {
            EACH p[c] += v[c] * MASKED;
            if (row < n) {
                EACH { s[c] += v[c]; q[c] += v[c] * (x[c] - mean[c]); }
            }
        }
        EACH { sum[c] += s[c]; product[c] += q[c]; both[c] += p[c]; }
    }
    EACH {
        double r = stats[C + c], v0 = sum[c], v1 = product[c] * r;
        double q = both[c] - (db[c] * v0 + dw[c] * v1) / n;
        double alpha = a[c] - w[c] * r * v1 / n, beta = -w[c] * r * dw[c] / n;
        ddw[c] = r * q;
        k1[c] = e1[c] = r * alpha;
        k2[c] = b[c] - w[c] * r * v0 / n;
        e2[c] = r * beta;
        e3[c] = -r * (r * (alpha * dw[c] + beta * v1) + w[c] * q * r * r) / n;
        e4[c] = -r * (alpha * db[c] + beta * v0) / n;
    }
    x -= rows * C, g -= rows * C, v -= rows * C;
    for (long row = 0; row < rows; row++, x += C, g += C, v += C, dg += C, dx += C) {
        EACH {
            float k = v[c] * scale[c] + (x[c] - mean[c]) * k1[c] + k2[c];
            dg[c] = x[c] * scale[c] + shift[c] <= 0 ? 0 : k;
            dx[c] = MASKED * e1[c];
        }
        if (row < n) {
            EACH dx[c] += v[c] * e2[c] + (x[c] - mean[c]) * e3[c] + e4[c];
        }
    }
}
