/* 3 x 3 convolutions of images (n, H, W, C) by weights (O, 3, 3, C), their transpose, and the weights' gradient.

   Each is a product of matrices, taken in tiles of some pixels (or outputs) by COLUMNS channels whose sums stay in
   registers. Compiled for each type REAL. */

#define Vec NAMED(Vec)
#define Term NAMED(Term)
#define Product NAMED(Product)
#define load NAMED(load)
#define tile NAMED(tile)
#define tiles NAMED(tiles)
#define gather NAMED(gather)
#define gathers NAMED(gathers)

typedef REAL Vec __attribute__((vector_size(BYTES), aligned(sizeof(REAL)), may_alias));
#define V ((long)(BYTES / sizeof(REAL)))
#define COLUMNS (2 * V)

typedef struct {
    const REAL *x, *panels; /* images, and weights in panels (columns / COLUMNS, tap, K, COLUMNS) */
} Term;

typedef struct {
    Term term[2]; /* whose sum is taken */
    long terms, K, stride, taps, columns; /* K factors a tap; a pixel's begin `stride` behind those of the last one */
    const long *from, *to;
    REAL *out;
} Product;

static inline Vec load(const REAL *at) { return *(const Vec *)at; }

/* COLUMNS numbers into two vectors, or the first `left` of them where these are fewer; no array of sums is copied as
   memory, so that sums stay in registers */
INLINE void NAMED(fetch)(Vec *low, Vec *high, const REAL *from, long left) {
    if (left >= COLUMNS) {
        *low = load(from), *high = load(from + V);
    } else {
        REAL part[COLUMNS] = {0};
        memcpy(part, from, left * sizeof *part);
        *low = load(part), *high = load(part + V);
    }
}

INLINE void NAMED(store)(REAL *to, Vec low, Vec high, long left) {
    if (left >= COLUMNS) {
        *(Vec *)to = low, *(Vec *)(to + V) = high;
    } else {
        REAL part[COLUMNS];
        *(Vec *)part = low, *(Vec *)(part + V) = high;
        memcpy(to, part, left * sizeof *part);
    }
}

/* COLUMNS numbers, those after the first `left` 0 */
static inline void NAMED(row)(REAL *to, const REAL *from, long left) {
    if (left >= COLUMNS)
        memcpy(to, from, COLUMNS * sizeof *to);
    else
        for (long j = 0; j < COLUMNS; j++)
            to[j] = j < left ? from[j] : 0;
}

/* R pixels of a kind, from number `row` of the plan, COLUMNS channels from `o` */
INLINE void tile(long R, const Product *job, const Kind *kind, long row, long o) {
    const long K = job->K, left = job->columns - o;
    Vec sum[ROWS][2];
    EACH_ROW
        sum[r][0] = sum[r][1] = (Vec){0};
    for (const Term *term = job->term; term < job->term + job->terms; term++)
        for (long i = 0; i < kind->taps; i++) {
            const REAL *b = term->panels + (o * job->taps + kind->tap[i] * COLUMNS) * K, *a[ROWS];
            EACH_ROW
                a[r] = term->x + (job->from[row + r] + kind->shift[i]) * job->stride;
            for (long k = 0; k < K; k++, b += COLUMNS) {
                Vec b0 = load(b), b1 = load(b + V);
                EACH_ROW {
                    sum[r][0] += a[r][k] * b0;
                    sum[r][1] += a[r][k] * b1;
                }
            }
        }
    EACH_ROW {
        REAL *out = job->out + job->to[row + r] * job->columns + o;
        NAMED(store)(out, sum[r][0], sum[r][1], left);
    }
}

/* out (R, COLUMNS) += sum over `count` pixels of R numbers, at a[pixel] + o, times a row of b (count, COLUMNS) */
INLINE void gather(long R, const REAL *const *a, long o, const REAL *const *b, long c, long count, REAL *out,
                   long stride, long left) {
    Vec sum[ROWS][2];
    EACH_ROW
        NAMED(fetch)(&sum[r][0], &sum[r][1], out + r * stride, left);
    for (long k = 0; k < count; k++) {
        const REAL *at = a[k] + o;
        __asm__("" : "+r"(at)); /* one register and constant offsets, not R of them */
        Vec b0 = load(b[k] + c), b1 = load(b[k] + c + V);
        EACH_ROW {
            sum[r][0] += at[r] * b0;
            sum[r][1] += at[r] * b1;
        }
    }
    EACH_ROW
        NAMED(store)(out + r * stride, sum[r][0], sum[r][1], left);
}

/* a function for each number of rows, so that it is a constant and sums find registers */
#define TILE(R)                                                                                                        \
    static APART void NAMED(tile_##R)(const Product *job, const Kind *kind, long row, long o) {                        \
        tile(R, job, kind, row, o);                                                                                    \
    }                                                                                                                  \
    static APART void NAMED(gather_##R)(const REAL *const *a, long o, const REAL *const *b, long c, long count,        \
                                        REAL *out, long stride, long left) {                                           \
        gather(R, a, o, b, c, count, out, stride, left);                                                               \
    }
EACH_ROWS(TILE)
#define TILE_NAME(R) NAMED(tile_##R),
#define GATHER_NAME(R) NAMED(gather_##R),
static void (*const tiles[])(const Product *, const Kind *, long, long) = {0, EACH_ROWS(TILE_NAME)};
static void (*const gathers[])(const REAL *const *, long, const REAL *const *, long, long, REAL *, long, long) = {
    0, EACH_ROWS(GATHER_NAME)};

/* The room of a pixel's patch of C channels, in whole vectors. */
#define PATCH(C) ((9 * (C) + V - 1) / V * V)

/* The pixels of a chunk, from number `begin` of the plan, with their factors: (count, 3, 3, C), 0 outside, each in
   PATCH(C) numbers. Taps that lie side by side are copied in one go. */
static void NAMED(patches)(const Plan *plan, long begin, long end, const REAL *x, long C, REAL *out) {
    for (const Kind *kind = plan->kind; kind < plan->kind + plan->kinds; kind++) {
        long runs = 0, to[9], from[9], count[9];
        for (long i = 0; i < kind->taps; i++)
            if (i && kind->tap[i] == kind->tap[i - 1] + 1 && kind->shift[i] == kind->shift[i - 1] + 1)
                count[runs - 1] += C;
            else
                to[runs] = kind->tap[i] * C, from[runs] = kind->shift[i] * C, count[runs++] = C;
        for (long row = MAX(begin, kind->begin); row < MIN(end, kind->end); row++) {
            REAL *patch = out + (row - begin) * PATCH(C);
            const REAL *first = x + plan->from[row] * C;
            for (long j = 0; kind->taps < 9 && j < PATCH(C); j += V)
                *(Vec *)(patch + j) = (Vec){0};
            for (long i = 0; i < runs; i++)
                if (count[i] == 9) /* three taps of three channels */
                    memcpy(patch + to[i], first + from[i], 9 * sizeof *x);
                else if (count[i] == 3) /* of one */
                    memcpy(patch + to[i], first + from[i], 3 * sizeof *x);
                else
                    for (long j = 0; j < count[i]; j++)
                        patch[to[i] + j] = first[from[i] + j];
        }
    }
}

/* Some rows of a kind, in tiles of nearly one height. */
static void NAMED(rows)(const Product *job, const Kind *kind, long begin, long end, long o) {
    long rows = end - begin, count = (rows + ROWS - 1) / ROWS;
    for (long i = 0; i < count; i++) {
        long row = i * rows / count;
        tiles[(i + 1) * rows / count - row](job, kind, begin + row, o);
    }
}

/* out (pixels, columns) = sum of `terms` convolutions of images (pixels, K) */
static void NAMED(product)(const Plan *plan, const Term *term, long terms, long K, REAL *out, long columns) {
    for (long begin = 0; begin < plan->pixels; begin += CHUNK) {
        long end = MIN(begin + CHUNK, plan->pixels), order[CHUNK];
        Product job = {.terms = terms, .K = K, .stride = K, .taps = 9, .columns = columns,
                       .from = plan->from, .to = plan->to, .out = out};
        REAL few[2][CHUNK * PATCH(FEW)];
        for (long t = 0; t < terms; t++)
            job.term[t] = term[t];
        if (K <= FEW) { /* one tap of nine times as many factors */
            job.K = 9 * K, job.stride = PATCH(K), job.taps = 1, job.from = order, job.to = plan->to + begin;
            for (long t = 0; t < terms; t++) {
                NAMED(patches)(plan, begin, end, term[t].x, K, few[t]);
                job.term[t].x = few[t];
            }
            for (long i = 0; i < end - begin; i++)
                order[i] = i;
        }
        for (long o = 0; o < columns; o += COLUMNS)
            if (K <= FEW)
                NAMED(rows)(&job, &(Kind){.taps = 1}, 0, end - begin, o);
            else
                for (const Kind *kind = plan->kind; kind < plan->kind + plan->kinds; kind++)
                    NAMED(rows)(&job, kind, MAX(begin, kind->begin), MAX(begin, MAX(kind->begin, MIN(end, kind->end))),
                                o);
    }
}

/* dw (O, taps, C) += sum over pixels of g (pixels, O) times x (C numbers a pixel and tap), of the chunk's pixels */
static void NAMED(chunk)(const REAL *const *x, const REAL *const *g, long count, long C, long O, REAL *dw,
                         long stride) {
    const REAL *last[CHUNK];
    REAL b[CHUNK * COLUMNS];
    for (long c = 0; c < C && count; c += COLUMNS) {
        long whole = C - c >= COLUMNS;
        for (long k = 0; k < count && !whole; k++) {
            NAMED(row)(b + k * COLUMNS, x[k] + c, C - c);
            last[k] = b + k * COLUMNS - c;
        }
        for (long i = 0, parts = (O + ROWS - 1) / ROWS; i < parts; i++) {
            long o = i * O / parts;
            gathers[(i + 1) * O / parts - o](g, o, whole ? x : last, c, count, dw + o * stride + c, stride, C - c);
        }
    }
}

/* `weights` where channels are few: the nine taps of a pixel as one, against whole columns of g. */
static void NAMED(few_weights)(const Plan *plan, const REAL *x, const REAL *g, long C, long O, REAL *dw) {
    const long K = 9 * C, wide = (O + COLUMNS - 1) / COLUMNS * COLUMNS, parts = (K + ROWS - 1) / ROWS;
    const REAL *from[CHUNK], *to[CHUNK];
    REAL few[CHUNK * PATCH(FEW)], b[CHUNK * COLUMNS], *sums = calloc(K * wide, sizeof *sums);
    for (long begin = 0; begin < plan->pixels; begin += CHUNK) {
        long count = MIN(CHUNK, plan->pixels - begin);
        NAMED(patches)(plan, begin, begin + count, x, C, few);
        for (long i = 0; i < count; i++)
            from[i] = few + i * PATCH(C);
        for (long o = 0; o < O; o += COLUMNS) {
            for (long i = 0; i < count; i++) {
                NAMED(row)(b + i * COLUMNS, g + plan->to[begin + i] * O + o, O - o);
                to[i] = b + i * COLUMNS;
            }
            for (long i = 0; i < parts; i++) {
                long k = i * K / parts;
                gathers[(i + 1) * K / parts - k](from, k, to, 0, count, sums + k * wide + o, wide, COLUMNS);
            }
        }
    }
    for (long o = 0; o < O; o++)
        for (long k = 0; k < K; k++)
            dw[o * K + k] += sums[k * wide + o];
    free(sums);
}

/* dw (O, 3, 3, C) += the gradient of a convolution's weights: x its images, g the gradient of what it gave */
static void NAMED(weights)(const Plan *plan, const REAL *x, const REAL *g, long C, long O, REAL *dw) {
    const REAL *from[CHUNK], *to[CHUNK];
    if (C <= FEW) {
        NAMED(few_weights)(plan, x, g, C, O, dw);
        return;
    }
    for (long place = 0; place < plan->chunks * 9; place++) { /* a chunk and a tap */
        const int *pairs = plan->pairs + place * 2 * CHUNK;
        for (long i = 0; i < plan->count[place]; i++)
            from[i] = x + pairs[i] * C, to[i] = g + pairs[CHUNK + i] * O;
        NAMED(chunk)(from, to, plan->count[place], C, O, dw + place % 9 * C, 9 * C);
    }
}

/* The room that panels take, in numbers. */
static size_t NAMED(panel_room)(long O, long C) { return (O + COLUMNS) * (C + COLUMNS) * 9; }

/* Weights (O, 3, 3, C) as a convolution's panels. */
static void NAMED(panels)(const REAL *w, REAL *panel, long O, long C) {
    const long K = 9 * C;
    for (long o = 0; o < O; o += COLUMNS, panel += K * COLUMNS)
        for (long k0 = 0; k0 < K; k0 += 16) /* in blocks, so that both sides stay in the cache */
            for (long j = 0; j < COLUMNS; j++)
                for (long k = k0; k < MIN(k0 + 16, K); k++)
                    panel[k * COLUMNS + j] = o + j < O ? w[(o + j) * K + k] : 0;
}

/* The same for its transpose, which gives C channels of O. */
static void NAMED(panels_transposed)(const REAL *w, REAL *panel, long O, long C) {
    for (long c = 0; c < C; c += COLUMNS)
        for (long tap = 0; tap < 9; tap++)
            for (long o = 0; o < O; o++, panel += COLUMNS)
                NAMED(row)(panel, w + (o * 9 + tap) * C + c, C - c);
}
