/* Which pixels a 3 x 3 convolution, padded by 1, or its transpose multiplies for each pixel that it gives.

   Pixels whose taps lie inside the image are the same make a kind. No patches are copied: a plan says where each
   pixel's first factor lies, a kind how far off the other taps are (Dukhan 2019, "The Indirect Convolution
   Algorithm"). Nothing is multiplied that lies outside: a quarter of the work on images of 4 x 4. */

#include <stdlib.h>

#define LARGE 1024 /* pixels of an image from which on one after the other is faster, as memory is read in order */

typedef struct {
    long begin, end, taps, tap[9], shift[9]; /* its pixels in the plan; its taps, and how many pixels off they are */
} Kind;

typedef struct {
    long pixels, *from, *to, kinds; /* of each pixel given: its first factor among those of all images; its own place */
    Kind kind[49];
    long chunks;
    int *pairs, *count; /* see plan_pairs */
} Plan;

/* Along one side: which of 3 taps lie inside, as bits, and where the first of them is. */
static void plan_side(long *inside, long *first, long out, long in, long stride, long transposed) {
    for (long p = 0; p < out; p++) {
        inside[p] = 0;
        for (long tap = 2; tap >= 0; tap--) {
            long at = transposed ? p + 1 - tap : p * stride - 1 + tap;
            if (transposed && at % stride)
                continue;
            at = transposed ? at / stride : at;
            if (at >= 0 && at < in)
                inside[p] |= 1 << tap, first[p] = at;
        }
    }
}

static void plan_taps(Kind *kind, long ys, long xs, long width, long step) {
    kind->taps = 0;
    for (long y = 0, y0 = -1; y < 3; y++)
        for (long x = 0, x0 = -1; x < 3 && ys >> y & 1; x++)
            if (xs >> x & 1) {
                y0 = y0 < 0 ? y : y0, x0 = x0 < 0 ? x : x0;
                kind->tap[kind->taps] = 3 * y + x;
                kind->shift[kind->taps++] = (y - y0) / step * width + (x - x0) / step;
            }
}

/* n images of h x w pixels from those of H x W; transposed: the other way round, H x W being the smaller one. */
static void plan_make(Plan *plan, long n, long h, long w, long H, long W, long stride, long transposed) {
    long *room = malloc((2 * n * h * w + 2 * (h + w)) * sizeof *room), step = transposed ? -stride : 1;
    long together = h * w < LARGE ? n : 1; /* images whose pixels alternate */
    long *ys = room + 2 * n * h * w, *y0 = ys + h, *xs = y0 + h, *x0 = xs + w;
    *plan = (Plan){.from = room, .to = room + n * h * w};
    plan_side(ys, y0, h, H, stride, transposed);
    plan_side(xs, x0, w, W, stride, transposed);
    long rows = 0, columns = 0; /* which taps there are, as bits of bits */
    for (long y = 0; y < h; y++)
        rows |= 1 << ys[y];
    for (long x = 0; x < w; x++)
        columns |= 1 << xs[x];
    for (long a = 1; a < 8; a++)
        for (long b = 1; b < 8; b++) {
            if (!(rows >> a & columns >> b & 1))
                continue;
            Kind *kind = plan->kind + plan->kinds;
            kind->begin = plan->pixels;
            plan_taps(kind, a, b, W, step);
            for (long first = 0; first < n; first += together)
                for (long y = 0; y < h; y++)
                    for (long x = 0; ys[y] == a && x < w; x++)
                        for (long i = first; xs[x] == b && i < first + together; i++) {
                            plan->from[plan->pixels] = (i * H + y0[y]) * W + x0[x];
                            plan->to[plan->pixels++] = (i * h + y) * w + x;
                        }
            kind->end = plan->pixels;
            plan->kinds++;
        }
}

/* For the gradient of weights: of each chunk of pixels and each tap, which factor goes with which pixel given, up to
   CHUNK of them in `pairs` (chunks, taps, 2, CHUNK), and how many in `count` (chunks, taps). */
static void plan_pairs(Plan *plan) {
    plan->chunks = (plan->pixels + CHUNK - 1) / CHUNK;
    plan->pairs = malloc(plan->chunks * 9 * 2 * CHUNK * sizeof(int));
    plan->count = calloc(plan->chunks * 9, sizeof(int));
    for (const Kind *kind = plan->kind; kind < plan->kind + plan->kinds; kind++)
        for (long row = kind->begin; row < kind->end; row++)
            for (long i = 0; i < kind->taps; i++) {
                long place = row / CHUNK * 9 + kind->tap[i], at = place * 2 * CHUNK + plan->count[place]++;
                plan->pairs[at] = plan->from[row] + kind->shift[i];
                plan->pairs[at + CHUNK] = plan->to[row];
            }
}

static void plan_forward(Plan *plan, const Block *s) {
    plan_make(plan, s->n, s->h, s->w, s->H, s->W, s->stride, 0);
}

/* `wanted`: whether the gradient of images is. */
static void plan_both(Plan *plan, Plan *back, const Block *s, int wanted) {
    plan_forward(plan, s);
    *back = (Plan){0};
    if (wanted)
        plan_make(back, s->n, s->H, s->W, s->h, s->w, s->stride, 1);
    if (s->C > FEW)
        plan_pairs(plan);
}

static void plan_end(Plan *plan) { free(plan->from), free(plan->pairs), free(plan->count); }
