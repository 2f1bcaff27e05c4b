/* The arithmetic of block.py, which says what it is: convolution, batch norm, ReLU and pooling of T tasks, each by
   weights of its own, with two derivatives. Threads share the tasks, in parts, so that sums over tasks are the same to the last
   bit however many threads there are. Compiled for each type REAL. */

#define Memory NAMED(Memory)

typedef struct { /* what a thread works in */
    REAL *panels, *others, *v;
    double *sums;
} Memory;

static Memory NAMED(memory)(const Block *s) {
    size_t room = MAX(NAMED(panel_room)(s->O, s->C), NAMED(panel_room)(s->C, s->O));
    Memory m = {.panels = malloc((2 * room + OUT) * sizeof(REAL)),
                .sums = malloc((6 * PARTS + 5) * s->O * sizeof(double))};
    m.others = m.panels + room, m.v = m.others + room;
    return m;
}

static void NAMED(forget)(Memory m) { free(m.panels), free(m.sums); }

/* z = conv(x, w), y = pool(relu(norm(z))) */
void NAMED(block_forward)(const Block *s, const REAL *x, const REAL *w, const REAL *gamma, const REAL *beta, REAL *z,
                          REAL *y, REAL *stats, double eps) {
    Plan plan;
    plan_make(&plan, s->n, s->h, s->w, s->H, s->W, s->stride, 0);
    PARALLEL {
        Memory m = NAMED(memory)(s);
        if (s->shared)
            NAMED(panels)(w, m.panels, s->O, s->C);
        EACH_TASK {
            Term term = {x + t * IN, m.panels};
            Sizes sizes = SIZES;
            if (!s->shared)
                NAMED(panels)(w + t * WEIGHTS, m.panels, s->O, s->C);
            NAMED(product)(&plan, &term, 1, s->C, z + t * OUT, s->O);
            NAMED(norm_forward)(z + t * OUT, gamma + t * s->O, beta + t * s->O, y + t * POOLED, stats + t * 4 * s->O,
                                m.sums, &sizes, eps);
        }
        NAMED(forget)(m);
    }
    plan_end(&plan);
}

/* g = dL/dy and, unless NULL, what else L's derivative by z is, -> dz, dx unless NULL, dw, dgamma, dbeta */
void NAMED(block_backward)(const Block *s, const REAL *g, const REAL *gz, const REAL *x, const REAL *w, const REAL *z,
                           const REAL *stats, REAL *dz, REAL *dx, REAL *dw, REAL *dgamma, REAL *dbeta) {
    Plan plan, back;
    plan_make(&plan, s->n, s->h, s->w, s->H, s->W, s->stride, 0);
    plan_make(&back, s->n, s->H, s->W, s->h, s->w, s->stride, 1);
    PARALLEL {
        Memory m = NAMED(memory)(s);
        if (s->shared && dx)
            NAMED(panels_transposed)(w, m.panels, s->O, s->C);
        EACH_TASK {
            Term term = {dz + t * OUT, m.panels};
            Sizes sizes = SIZES;
            NAMED(norm_backward)(g + t * POOLED, z + t * OUT, stats + t * 4 * s->O, dz + t * OUT, dgamma + t * s->O,
                                 dbeta + t * s->O, m.sums, &sizes);
            for (long i = t * OUT; gz && i < (t + 1) * OUT; i++)
                dz[i] += gz[i];
            NAMED(weights)(&plan, x + t * IN, dz + t * OUT, s->C, s->O, SUM_AT(dw));
            if (!s->shared && dx)
                NAMED(panels_transposed)(w + t * WEIGHTS, m.panels, s->O, s->C);
            if (dx)
                NAMED(product)(&back, &term, 1, s->O, dx + t * IN, s->C);
        }
        NAMED(forget)(m);
    }
    plan_end(&plan), plan_end(&back);
}

/* For L = sum(vx dx) + sum(vw dw) + sum(a dgamma) + sum(b dbeta): its derivatives by g, z, gz, x, w and gamma. */
void NAMED(block_second)(const Block *s, const REAL *vx, const REAL *vw, const REAL *a, const REAL *b, const REAL *g,
                         const REAL *x, const REAL *w, const REAL *gamma, const REAL *z, const REAL *stats,
                         const REAL *dz, const REAL *dgamma, const REAL *dbeta, REAL *dg, REAL *d2z, REAL *dgz,
                         REAL *dx, REAL *dw, REAL *d2gamma) {
    Plan plan, back;
    plan_make(&plan, s->n, s->h, s->w, s->H, s->W, s->stride, 0);
    plan_make(&back, s->n, s->H, s->W, s->h, s->w, s->stride, 1);
    PARALLEL {
        Memory m = NAMED(memory)(s);
        EACH_TASK {
            const REAL *vwt = s->summed ? vw : vw + t * WEIGHTS;
            REAL *v = dgz ? dgz + t * OUT : m.v;
            Sizes sizes = SIZES;
            NAMED(panels)(vwt, m.panels, s->O, s->C);
            if (vx)
                NAMED(panels)(s->shared ? w : w + t * WEIGHTS, m.others, s->O, s->C);
            Term both[2] = {{x + t * IN, m.panels}, {vx + t * IN, m.others}};
            NAMED(product)(&plan, both, vx ? 2 : 1, s->C, v, s->O);
            NAMED(norm_second)(v, a + t * s->O, b + t * s->O, g + t * POOLED, z + t * OUT, gamma + t * s->O,
                               stats + t * 4 * s->O, dgamma + t * s->O, dbeta + t * s->O, dg + t * POOLED,
                               d2z + t * OUT, d2gamma + t * s->O, m.sums, &sizes);
            if (vx) {
                Term term = {dz + t * OUT, m.panels};
                NAMED(weights)(&plan, vx + t * IN, dz + t * OUT, s->C, s->O, SUM_AT(dw));
                NAMED(panels_transposed)(vwt, m.panels, s->O, s->C);
                NAMED(product)(&back, &term, 1, s->O, dx + t * IN, s->C);
            }
        }
        NAMED(forget)(m);
    }
    plan_end(&plan), plan_end(&back);
}
