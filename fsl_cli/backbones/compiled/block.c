/* The arithmetic of block.py, which says what it is: convolution, batch norm, ReLU and pooling of T tasks, each by
   weights of its own, with two derivatives. A task goes through all blocks before the next one begins, so that what one
   block hands to another is still in the cache. Threads share the tasks, in parts, so that sums over tasks are the same
   to the last bit however many threads there are. Compiled for each type REAL. */

#define Memory NAMED(Memory)
#define Forward NAMED(Forward)
#define Backward NAMED(Backward)
#define Second NAMED(Second)

typedef struct {
    const REAL *x, *w, *gamma, *beta;
    REAL *z, *y, *stats;
} Forward;

typedef struct {
    const REAL *g, *gz, *gx, *x, *w, *z, *stats;
    REAL *dz, *dx, *dw, *dgamma, *dbeta;
} Backward;

typedef struct {
    const REAL *vx, *vw, *a, *b, *g, *x, *w, *gamma, *z, *stats, *dz, *dgamma, *dbeta;
    REAL *dg, *d2z, *dgz, *dx, *dw, *d2gamma;
} Second;

typedef struct { /* what a thread works in, of one block */
    REAL *v, *z, *panels, *others;
    double *sums;
} Memory;

/* What a thread works in, of each block; what tasks do not share is in one place. */
static void NAMED(remember)(const Block *sizes, long count, Memory *memory) {
    size_t room = 0, shared = 0, out = 0, wide = 0;
    for (const Block *s = sizes; s < sizes + count; s++) {
        room = MAX(room, NAMED(panel_room)(s->O, s->C)), shared += s->shared ? NAMED(panel_room)(s->O, s->C) : 0;
        out = MAX(out, (size_t)OUT), wide = MAX(wide, (size_t)s->O);
    }
    REAL *v = malloc((2 * out + 2 * room + shared) * sizeof *v), *panels = v + 2 * out, *own = panels + 2 * room;
    double *sums = malloc((6 * PARTS + 5) * wide * sizeof *sums);
    for (long i = 0; i < count; i++) {
        memory[i] = (Memory){v, v + out, panels, panels + room, sums};
        if (sizes[i].shared)
            memory[i].panels = own, own += NAMED(panel_room)(sizes[i].O, sizes[i].C);
    }
}

static void NAMED(forget)(const Memory *memory) { free(memory->v), free(memory->sums); }

/* z of a task, or where it was not kept, computed again. */
static const REAL *NAMED(again)(const Block *s, const Plan *plan, long t, const REAL *x, const REAL *w, const REAL *z,
                                const Memory *m) {
    if (z)
        return z + t * OUT;
    NAMED(panels)(s->shared ? w : w + t * WEIGHTS, m->others, s->O, s->C);
    NAMED(product)(plan, &(Term){x + t * IN, m->others}, 1, s->C, m->z, s->O);
    return m->z;
}

/* The gradient of a task's weights, or what it adds to that of its part. */
static void NAMED(own_weights)(const Block *s, const Plan *plan, long t, long part, const REAL *x, const REAL *g,
                               REAL *dw) {
    REAL *own = dw + (s->summed ? part : t) * WEIGHTS;
    if (!s->summed)
        memset(own, 0, WEIGHTS * sizeof *own);
    NAMED(weights)(plan, x + t * IN, g, s->C, s->O, own);
}

static void NAMED(one_forward)(const Block *s, const Forward *d, const Plan *plan, long t, const Memory *m) {
    const long at = t * s->O;
    REAL *z = d->z ? d->z + t * OUT : m->z;
    Sizes sizes = SIZES;
    if (!s->shared)
        NAMED(panels)(d->w + t * WEIGHTS, m->panels, s->O, s->C);
    NAMED(product)(plan, &(Term){d->x + t * IN, m->panels}, 1, s->C, z, s->O);
    NAMED(norm_forward)(z, d->gamma + at, d->beta + at, d->y + t * POOLED, d->stats + 4 * at, m->sums, &sizes, s->eps);
}

static void NAMED(one_backward)(const Block *s, const Backward *d, const Plan *plan, const Plan *back, long t,
                                long part, const Memory *m) {
    const long at = t * s->O;
    const REAL *z = NAMED(again)(s, plan, t, d->x, d->w, d->z, m);
    REAL *dz = d->dz ? d->dz + t * OUT : m->v, *dx = d->dx + t * IN;
    Sizes sizes = SIZES;
    NAMED(norm_backward)(d->g + t * POOLED, z, d->stats + 4 * at, dz, d->dgamma + at, d->dbeta + at, m->sums, &sizes);
    for (long i = 0; d->gz && i < OUT; i++)
        dz[i] += d->gz[t * OUT + i];
    NAMED(own_weights)(s, plan, t, part, d->x, dz, d->dw);
    if (!d->dx)
        return;
    if (!s->shared)
        NAMED(panels_transposed)(d->w + t * WEIGHTS, m->panels, s->O, s->C);
    NAMED(product)(back, &(Term){dz, m->panels}, 1, s->O, dx, s->C);
    for (long i = 0; d->gx && i < IN; i++)
        dx[i] += d->gx[t * IN + i];
}

static void NAMED(one_second)(const Block *s, const Second *d, const Plan *plan, const Plan *back, long t, long part,
                              const Memory *m) {
    const long at = t * s->O;
    const REAL *z = NAMED(again)(s, plan, t, d->x, d->w, d->z, m), *vw = s->summed ? d->vw : d->vw + t * WEIGHTS;
    REAL *v = d->dgz ? d->dgz + t * OUT : m->v;
    Sizes sizes = SIZES;
    NAMED(panels)(vw, m->panels, s->O, s->C);
    if (d->vx)
        NAMED(panels)(s->shared ? d->w : d->w + t * WEIGHTS, m->others, s->O, s->C);
    Term both[2] = {{d->x + t * IN, m->panels}, {d->vx + t * IN, m->others}};
    NAMED(product)(plan, both, d->vx ? 2 : 1, s->C, v, s->O);
    NAMED(norm_second)(v, d->a + at, d->b + at, d->g + t * POOLED, z, d->gamma + at, d->stats + 4 * at, d->dgamma + at,
                       d->dbeta + at, d->dg + t * POOLED, d->d2z + t * OUT, d->d2gamma + at, m->sums, &sizes);
    if (!d->vx)
        return;
    NAMED(own_weights)(s, plan, t, part, d->vx, d->dz + t * OUT, d->dw);
    NAMED(panels_transposed)(vw, m->panels, s->O, s->C);
    NAMED(product)(back, &(Term){d->dz + t * OUT, m->panels}, 1, s->O, d->dx + t * IN, s->C);
}

/* z = conv(x, w), which is not kept where it is NULL, y = pool(relu(norm(z))), of `count` blocks */
void NAMED(blocks_forward)(const Block *sizes, const Forward *blocks, long count) {
    const Block *s = sizes;
    Plan plan[count];
    for (long i = 0; i < count; i++)
        plan_forward(plan + i, sizes + i);
    PARALLEL {
        Memory memory[count];
        NAMED(remember)(sizes, count, memory);
        for (long i = 0; i < count; i++)
            if (sizes[i].shared)
                NAMED(panels)(blocks[i].w, memory[i].panels, sizes[i].O, sizes[i].C);
        EACH_TASK
            for (long i = 0; i < count; i++)
                NAMED(one_forward)(sizes + i, blocks + i, plan + i, t, memory + i);
        NAMED(forget)(memory);
    }
    for (long i = 0; i < count; i++)
        plan_end(plan + i);
}

/* g = dL/dy and, unless NULL, what else L's derivatives by z and x are, gz and gx -> dz and dx unless NULL, dw, dgamma,
   dbeta, of `count` blocks, the last one first */
void NAMED(blocks_backward)(const Block *sizes, const Backward *blocks, long count) {
    const Block *s = sizes;
    Plan plan[count], back[count];
    for (long i = 0; i < count; i++)
        plan_both(plan + i, back + i, sizes + i, blocks[i].dx != 0);
    PARALLEL {
        Memory memory[count];
        NAMED(remember)(sizes, count, memory);
        for (long i = 0; i < count; i++)
            if (sizes[i].shared && blocks[i].dx)
                NAMED(panels_transposed)(blocks[i].w, memory[i].panels, sizes[i].O, sizes[i].C);
        EACH_TASK
            for (long i = 0; i < count; i++)
                NAMED(one_backward)(sizes + i, blocks + i, plan + i, back + i, t, part, memory + i);
        NAMED(forget)(memory);
    }
    for (long i = 0; i < count; i++)
        plan_end(plan + i), plan_end(back + i);
}

/* For L = sum(vx dx) + sum(vw dw) + sum(a dgamma) + sum(b dbeta): its derivatives by g, z, gz, x, w and gamma. */
void NAMED(blocks_second)(const Block *sizes, const Second *blocks, long count) {
    const Block *s = sizes;
    Plan plan[count], back[count];
    for (long i = 0; i < count; i++)
        plan_both(plan + i, back + i, sizes + i, blocks[i].vx != 0);
    PARALLEL {
        Memory memory[count];
        NAMED(remember)(sizes, count, memory);
        EACH_TASK
            for (long i = 0; i < count; i++)
                NAMED(one_second)(sizes + i, blocks + i, plan + i, back + i, t, part, memory + i);
        NAMED(forget)(memory);
    }
    for (long i = 0; i < count; i++)
        plan_end(plan + i), plan_end(back + i);
}
