/* All that is compiled on a user's machine, in one piece. */

#include <stdlib.h>
#include <string.h>

#include "fused.c"

#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define INLINE static inline __attribute__((always_inline))
#define APART __attribute__((noinline))

/* Sums of a tile, ROWS x 2 vectors of BYTES, fill the registers but for three or four. */
#ifdef __AVX512F__
#define BYTES 64
#define ROWS 12
#define EACH_ROWS(F) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11) F(12)
#else
#define BYTES 32
#define ROWS 6
#define EACH_ROWS(F) F(1) F(2) F(3) F(4) F(5) F(6)
#endif
/* of a tile: unrolled before gcc decides which sums may stay in registers, or it puts all of them on the stack */
#define EACH_ROW _Pragma("GCC unroll 12") for (long r = 0; r < R; r++)
#define CHUNK 64 /* pixels taken at a time, so that what is read again and again stays in the smallest cache */
#define FEW 4    /* channels up to which a chunk's patches are copied, and the nine taps taken as one */

typedef struct { /* sizes of block.c: n images a task, the first k giving statistics, (H, W, C) -> (h, w, O) */
    long tasks, n, k, H, W, C, h, w, O, stride, pool;
    long shared, summed; /* whether all tasks have one w; whether dw is summed over the tasks of each part */
    long threads;
    double eps;
} Block;

#include "plan.c"

#define WEIGHTS (s->O * 9 * s->C)
#define IN (s->n * s->H * s->W * s->C)
#define OUT (s->n * s->h * s->w * s->O)
#define POOLED (s->pool ? s->n * (s->h / 2) * (s->w / 2) * s->O : OUT)
#define SIZES {s->n, s->k, s->h, s->w, s->O, s->pool, 1}
#define PARALLEL _Pragma("omp parallel num_threads(s->threads) if (s->threads > 1)")
#define EACH_TASK                                                                                                      \
    _Pragma("omp for schedule(dynamic)") for (long part = 0; part < PARTS; part++) for (                               \
        long t = part * s->tasks / PARTS; t < (part + 1) * s->tasks / PARTS; t++)

#define REAL float
#define NAMED(name) name##_float
#include "conv.c"
#include "block.c"
#undef REAL
#undef NAMED
#define REAL double
#define NAMED(name) name##_double
#include "conv.c"
#include "block.c"
