#include "native.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

/* The transportation simplex, for dense problems that fit into the cache, one thread a problem.
 *
 * A basis is a spanning tree of supplies and demands, hung up at the largest demand. Nodes of
 * weight 0 are left out. Weights are integers whose sum is 2^60, and costs are integers of so few
 * bits that their sum along any path of the tree fits 32: no rounding decides anything, and no
 * vector width changes it. The tree is strongly feasible: an edge without flow leads from a supply
 * up to a demand. W. H. Cunningham, "A network simplex method" (Mathematical Programming 11, 1976)
 * shows that the simplex never cycles then.
 *
 * Afterwards potentials of the tree follow from the costs as given, with twice the bits of a
 * double. If the tree is not optimal for these, because costs differ by less than the integers
 * tell, the simplex goes on with those potentials, where every pivot takes longer. */

enum {
    LANES = 8,
    NO_NODE = -1,
    TOTAL_BITS = 60,
    POTENTIAL_BITS = 29,
    NO_EDGE = 1 << 30, /* more than any reduced cost can make up for */
    MAX_NODES = 1 << 20,
    BLOCK_CELLS = 2048,
    PIVOTS_BETWEEN_LOOKS = 256
};

/* Products of such numbers, and sums of these, are finite. */
static const double LARGEST = 1e150;
static const double MAX_IMBALANCE = 1e-6;
static const double ROUNDING = 8 * DBL_EPSILON;

struct room {
    double *exact;      /* u of supplies, minus v of demands, for the costs as given */
    double *rest;       /* what twice the bits add to them */
    double *lowest;     /* costs of each demand, or v */
    double *weight;     /* as given */
    int64_t *amount;    /* as integers */
    int64_t *flow;      /* on the edge to the parent */
    int32_t *costs;     /* as integers, supplies x stride, NO_EDGE behind the last demand */
    int32_t *potential; /* u of supplies, minus v of demands, for these */
    int32_t *least;     /* of each demand */
    int32_t *parent;
    int32_t *depth;
    int32_t *next; /* in preorder, in a ring */
    int32_t *previous;
    int32_t *number;  /* of a node in the problem, on its own side */
    int32_t *edge_of; /* lists of edges of a node while a tree is made */
    int32_t *edge_next;
    int32_t *edge_supply;
    int32_t *edge_demand;
    int64_t *edge_flow;
    int32_t *stack;
    void *memory;
};

/* Supplies are nodes 0..n - 1, demands first_demand..first_demand + m - 1. */
struct tree {
    struct room *room;
    int64_t n;
    int64_t m;
    int64_t first_demand;
    int64_t stride;
    int64_t next_row; /* where pricing goes on */
    int32_t root;
    int32_t edges;
};

static int64_t padded(int64_t count) { return (count + LANES - 1) / LANES * LANES; }

static bool make_room(int64_t n, int64_t m, struct room *room) {
    const size_t nodes = (size_t)(padded(n) + padded(m)), cells = (size_t)(n * padded(m));
    const size_t doubles = 4 * nodes, longs = 3 * nodes, ints = cells + 13 * nodes;
    const size_t bytes = 8 * doubles + 8 * longs + 4 * ints;
    room->memory = aligned_alloc(CACHE_LINE_BYTES, (bytes + 63) / 64 * 64);
    if (room->memory == NULL)
        return false;
    double *const d = room->memory;
    room->exact = d;
    room->rest = d + nodes;
    room->lowest = d + 2 * nodes;
    room->weight = d + 3 * nodes;
    int64_t *const l = (int64_t *)(d + doubles);
    room->amount = l;
    room->flow = l + nodes;
    room->edge_flow = l + 2 * nodes;
    room->costs = (int32_t *)(l + longs);
    int32_t *const i = room->costs + cells;
    room->potential = i + 11 * nodes;
    room->least = i + 12 * nodes;
    room->parent = i;
    room->depth = i + nodes;
    room->next = i + 2 * nodes;
    room->previous = i + 3 * nodes;
    room->number = i + 4 * nodes;
    room->edge_of = i + 5 * nodes;
    room->edge_supply = i + 6 * nodes;
    room->edge_demand = i + 7 * nodes;
    room->edge_next = i + 8 * nodes; /* two an edge */
    room->stack = i + 10 * nodes;
    return true;
}

ALWAYS_INLINE double lesser(double first, double second) { return first < second ? first : second; }

ALWAYS_INLINE int32_t smaller(int32_t first, int32_t second) {
    return first < second ? first : second;
}

/* The smallest reduced costs of each column in some rows, if they are negative. */
ALWAYS_INLINE void price_rows(const struct tree *tree, int64_t begin, int64_t end) {
    enum { ROWS = 4 };
    const int64_t stride = tree->stride;
    const int32_t *restrict const minus_v = tree->room->potential + tree->first_demand;
    const int32_t *restrict const u = tree->room->potential;
    int32_t *restrict const least = tree->room->least;
    for (int64_t j = 0; j < stride; j++)
        least[j] = 0;
    int64_t i = begin;
    for (; i + ROWS <= end; i += ROWS) {
        const int32_t *restrict const first = tree->room->costs + i * stride;
        const int32_t *restrict const second = first + stride;
        const int32_t *restrict const third = second + stride;
        const int32_t *restrict const fourth = third + stride;
        const int32_t u0 = u[i], u1 = u[i + 1], u2 = u[i + 2], u3 = u[i + 3];
        for (int64_t j = 0; j < stride; j++) {
            const int32_t of_two = smaller(first[j] - u0, second[j] - u1);
            const int32_t of_others = smaller(third[j] - u2, fourth[j] - u3);
            least[j] = smaller(smaller(of_two, of_others) + minus_v[j], least[j]);
        }
    }
    for (; i < end; i++) {
        const int32_t *restrict const row = tree->room->costs + i * stride;
        const int32_t u0 = u[i];
        for (int64_t j = 0; j < stride; j++)
            least[j] = smaller(row[j] - u0 + minus_v[j], least[j]);
    }
}

ALWAYS_INLINE int32_t smallest_of(const int32_t *values, int64_t count) {
    int32_t smallest = values[0];
    for (int64_t j = 0; j < count; j++)
        smallest = smaller(values[j], smallest);
    return smallest;
}

static inline int64_t place_of(int32_t value, const int32_t *values, int64_t count) {
    int64_t place = 0;
    while (place + 1 < count && values[place] != value)
        place++;
    return place;
}

/* The edge that enters, the cheapest of some rows; false if the tree is optimal. */
ALWAYS_INLINE bool find_entering(struct tree *tree, int32_t *supply, int32_t *demand,
                                 int32_t *reduced) {
    const struct room *const room = tree->room;
    const int64_t at_once = BLOCK_CELLS / tree->stride, rows = at_once > 4 ? at_once : 4;
    for (int64_t looked_at = 0; looked_at < tree->n;) {
        const int64_t begin = tree->next_row;
        const int64_t end = begin + rows < tree->n ? begin + rows : tree->n;
        looked_at += end - begin;
        tree->next_row = end < tree->n ? end : 0;
        price_rows(tree, begin, end);
        const int32_t least = smallest_of(room->least, tree->stride);
        if (least < 0) {
            const int64_t j = place_of(least, room->least, tree->stride);
            const int32_t sum = least - room->potential[tree->first_demand + j];
            int64_t i = begin;
            while (i + 1 < end && room->costs[i * tree->stride + j] - room->potential[i] != sum)
                i++;
            *supply = (int32_t)i;
            *demand = (int32_t)(tree->first_demand + j);
            *reduced = least;
            return true;
        }
    }
    return false;
}

/* Many more than it ever takes. */
static int64_t pivot_limit(const struct tree *tree) { return 100000 + 1000 * (tree->n + tree->m); }

/* An edge up from a node that can lose so much flow. */
struct limit {
    int64_t flow;
    int32_t node;
};

/* Without branches, which no processor would foresee. */
ALWAYS_INLINE struct limit first_smallest(struct limit limit, int64_t flow, int32_t node) {
    limit.node = flow < limit.flow ? node : limit.node;
    limit.flow = flow < limit.flow ? flow : limit.flow;
    return limit;
}

ALWAYS_INLINE struct limit last_smallest(struct limit limit, int64_t flow, int32_t node) {
    limit.node = flow <= limit.flow ? node : limit.node;
    limit.flow = flow <= limit.flow ? flow : limit.flow;
    return limit;
}

/* Brings an edge with this reduced cost into the tree. */
ALWAYS_INLINE void pivot(struct tree *tree, int32_t supply, int32_t demand, int32_t reduced) {
    struct room *const room = tree->room;
    int32_t *restrict const parent = room->parent, *restrict const depth = room->depth;
    int32_t *restrict const next = room->next, *restrict const previous = room->previous;
    int64_t *restrict const flow = room->flow;
    int32_t *restrict const potential = room->potential;

    /* Flow of edges up from supplies falls on the supply's side of the cycle, that of edges up from
     * demands on the demand's. The last edge that blocks, seen from the top along the flow, leaves:
     * on the supply's side the lowest, on the demand's the highest. */
    const int32_t first_demand = (int32_t)tree->first_demand;
    struct limit of_supply = {INT64_MAX, NO_NODE}, of_demand = {INT64_MAX, NO_NODE};
    int32_t x = supply, y = demand;
    /* The deeper side first, then both at the same depth, where both are of the same kind. */
    int32_t ahead = depth[x] - depth[y];
    while (ahead > 0) {
        of_supply = first_smallest(of_supply, flow[x], x);
        x = parent[x];
        if (--ahead == 0)
            break;
        x = parent[x];
        ahead--;
    }
    while (ahead < 0) {
        of_demand = last_smallest(of_demand, flow[y], y);
        y = parent[y];
        if (++ahead == 0)
            break;
        y = parent[y];
        ahead++;
    }
    if (x != y && x < first_demand) {
        of_supply = first_smallest(of_supply, flow[x], x);
        x = parent[x];
        y = parent[y];
    }
    while (x != y) {
        of_demand = last_smallest(of_demand, flow[y], y);
        x = parent[x];
        y = parent[y];
        if (x == y)
            break;
        of_supply = first_smallest(of_supply, flow[x], x);
        x = parent[x];
        y = parent[y];
    }
    const int32_t top = x;
    const bool on_supply_side = of_supply.flow < of_demand.flow;
    const int64_t moved = on_supply_side ? of_supply.flow : of_demand.flow;
    const int32_t leaving = on_supply_side ? of_supply.node : of_demand.node;
    if (moved > 0) {
        for (x = supply; x != top; x = parent[x])
            flow[x] += x < first_demand ? -moved : moved;
        for (y = demand; y != top; y = parent[y])
            flow[y] += y >= first_demand ? -moved : moved;
    }

    /* What hangs below the leaving edge is hung up anew, below the other end of the entering one,
     * by the end that it contains. */
    const int32_t end = on_supply_side ? supply : demand;
    const int32_t new_parent = on_supply_side ? demand : supply;
    const int32_t shift = on_supply_side ? reduced : -reduced;
    const int32_t before = previous[leaving];
    const int32_t depth_of_new_parent = depth[new_parent];

    int32_t stem = end, parent_of_stem = new_parent, last = NO_NODE, after = NO_NODE;
    int32_t below = NO_NODE, done_before = NO_NODE, new_depth = depth_of_new_parent + 1;
    int64_t flow_of_stem = moved;
    for (;;) {
        /* Of this node of the stem: itself and what follows it up to the subtree that is done. */
        const int32_t old_parent = parent[stem], old_depth = depth[stem];
        const int64_t old_flow = flow[stem];
        const int32_t raised = new_depth - old_depth;
        int32_t first_part_end = stem, node = stem;
        const int32_t before_stem = previous[stem];
        if (below == NO_NODE) {
            do {
                depth[node] += raised;
                potential[node] += shift;
                first_part_end = node;
                node = next[node];
            } while (depth[node] > old_depth);
            after = node;
            last = first_part_end;
        } else {
            for (;;) {
                depth[node] += raised;
                potential[node] += shift;
                if (node == done_before)
                    break;
                node = next[node];
            }
            first_part_end = node;
            next[last] = stem;
            previous[stem] = last;
            last = first_part_end;
            node = after;
            if (depth[node] > old_depth) {
                next[last] = node;
                previous[node] = last;
                do {
                    depth[node] += raised;
                    potential[node] += shift;
                    last = node;
                    node = next[node];
                } while (depth[node] > old_depth);
                after = node;
            }
        }
        parent[stem] = parent_of_stem;
        flow[stem] = flow_of_stem;
        if (stem == leaving)
            break;
        below = stem;
        done_before = before_stem;
        parent_of_stem = stem;
        flow_of_stem = old_flow;
        stem = old_parent;
        new_depth++;
    }
    next[before] = after;
    previous[after] = before;
    const int32_t follower = next[new_parent];
    next[new_parent] = end;
    previous[end] = new_parent;
    next[last] = follower;
    previous[follower] = last;
}

/* A problem, and where its optimum goes. */
struct instance {
    int64_t supplies;
    int64_t demands;
    const double *costs;
    const double *supply_weights;
    const double *demand_weights;
    double *total;
    double *flow;
    double *supply_potential;
    double *demand_potential;
};

/* Nodes that have weight; returns the sum of their integers. */
static int64_t take_side(const double *weights, int64_t count, int64_t first, double sum_given,
                         double factor, struct room *room, int64_t *kept) {
    /* Of sums near 0 one factor would be infinite. */
    const double half = ldexp(1, TOTAL_BITS / 2) / sqrt(sum_given);
    int64_t sum = 0, node = first;
    for (int64_t i = 0; i < count; i++) {
        if (!(weights[i] > 0))
            continue;
        const int64_t amount = (int64_t)(weights[i] * half * half + 0.5);
        room->number[node] = (int32_t)i;
        room->weight[node] = weights[i] * factor;
        room->amount[node] = amount > 0 ? amount : 1;
        sum += room->amount[node++];
    }
    *kept = node - first;
    return sum;
}

/* The nodes of both sides, and the root, which makes both sums the same. */
static void take_nodes(struct tree *tree, const struct instance *instance, double supplied,
                       double demanded) {
    struct room *const room = tree->room;
    const int64_t sum =
        take_side(instance->supply_weights, instance->supplies, 0, supplied, 1, room, &tree->n);
    const int64_t other_sum =
        take_side(instance->demand_weights, instance->demands, tree->first_demand, demanded,
                  supplied / demanded, room, &tree->m);
    tree->stride = padded(tree->m);
    tree->root = (int32_t)tree->first_demand;
    for (int64_t j = tree->first_demand; j < tree->first_demand + tree->m; j++)
        if (room->amount[j] > room->amount[tree->root])
            tree->root = (int32_t)j;
    if (tree->n > 0)
        room->amount[tree->root] += sum - other_sum;
}

/* A row of costs of nodes that have weight. */
static const double *row_of(const struct tree *tree, const double *costs, int64_t demands,
                            int64_t i) {
    const struct room *const room = tree->room;
    const double *const given = costs + room->number[i] * demands;
    if (tree->m == demands)
        return given;
    for (int64_t j = 0; j < tree->m; j++)
        room->exact[j] = given[room->number[tree->first_demand + j]];
    return room->exact;
}

/* Costs less the smallest of their demand, as integers. */
ALWAYS_INLINE void take_costs(struct tree *tree, const double *costs, int64_t demands) {
    struct room *const room = tree->room;
    const int64_t stride = tree->stride, m = tree->m;
    double *restrict const lowest = room->lowest, *restrict const highest = room->rest;
    for (int64_t j = 0; j < m; j++) {
        lowest[j] = INFINITY;
        highest[j] = -INFINITY;
    }
    for (int64_t i = 0; i < tree->n; i++) {
        const double *const row = row_of(tree, costs, demands, i);
        for (int64_t j = 0; j < m; j++) {
            lowest[j] = lesser(row[j], lowest[j]);
            highest[j] = row[j] > highest[j] ? row[j] : highest[j];
        }
    }
    double range = 0;
    for (int64_t j = 0; j < m; j++)
        range = highest[j] - lowest[j] > range ? highest[j] - lowest[j] : range;
    int exponent, bits = POTENTIAL_BITS;
    for (int64_t nodes = tree->n + m; nodes > 0; nodes /= 2)
        bits--;
    frexp(range > 1e-250 ? range : 1e-250, &exponent);
    const double scale = ldexp(1, bits - exponent);
    for (int64_t i = 0; i < tree->n; i++) {
        const double *const row = row_of(tree, costs, demands, i);
        int32_t *restrict const integers = room->costs + i * stride;
        for (int64_t j = 0; j < m; j++)
            integers[j] = (int32_t)((row[j] - lowest[j]) * scale + 0.5);
        for (int64_t j = m; j < stride; j++)
            integers[j] = NO_EDGE;
    }
}

static void add_edge(struct tree *tree, int64_t supply, int64_t demand, int64_t flow) {
    struct room *const room = tree->room;
    const int32_t edge = tree->edges++;
    room->edge_supply[edge] = (int32_t)supply;
    room->edge_demand[edge] = (int32_t)demand;
    room->edge_flow[edge] = flow;
    room->edge_next[2 * edge] = room->edge_of[supply];
    room->edge_of[supply] = 2 * edge;
    room->edge_next[2 * edge + 1] = room->edge_of[demand];
    room->edge_of[demand] = 2 * edge + 1;
    room->amount[supply] -= flow;
    room->amount[demand] -= flow;
}

/* Edges with flow: each supply in turn goes to what is cheapest of what is still demanded. */
ALWAYS_INLINE void choose_edges(struct tree *tree) {
    struct room *const room = tree->room;
    int32_t *restrict const closed = room->potential + tree->first_demand;
    int32_t *restrict const open = room->least;
    for (int64_t j = 0; j < tree->stride; j++)
        closed[j] = j < tree->m ? 0 : NO_EDGE - 1;
    tree->edges = 0;
    for (int64_t node = 0; node < tree->first_demand + tree->m; node++)
        room->edge_of[node] = -1;
    for (int64_t i = 0; i < tree->n; i++)
        while (room->amount[i] > 0) {
            const int32_t *restrict const row = room->costs + i * tree->stride;
            for (int64_t j = 0; j < tree->stride; j++)
                open[j] = row[j] + closed[j];
            const int64_t j = place_of(smallest_of(open, tree->stride), open, tree->stride);
            const int64_t demand = tree->first_demand + j;
            const int64_t left = room->amount[i], wanted = room->amount[demand];
            add_edge(tree, i, demand, left < wanted ? left : wanted);
            if (room->amount[demand] == 0)
                closed[j] = NO_EDGE - 1;
        }
}

/* Hangs up the forest of the edges, and what does not hang together below the root. */
static void hang_up(struct tree *tree) {
    struct room *const room = tree->room;
    int32_t *const stack = room->stack;
    const int32_t first_demand = (int32_t)tree->first_demand;
    for (int64_t node = 0; node < first_demand + tree->m; node++)
        room->depth[node] = -1;
    int32_t last = NO_NODE, unseen = 0, top = 0;
    stack[top++] = tree->root;
    room->depth[tree->root] = 0;
    room->parent[tree->root] = NO_NODE;
    room->flow[tree->root] = 0;
    room->potential[tree->root] = 0;
    for (;;) {
        while (top > 0) {
            const int32_t node = stack[--top];
            if (last != NO_NODE)
                room->next[last] = node;
            room->previous[node] = last;
            last = node;
            for (int32_t half = room->edge_of[node]; half >= 0; half = room->edge_next[half]) {
                const int32_t edge = half / 2;
                const int32_t i = room->edge_supply[edge], j = room->edge_demand[edge];
                const int32_t other = half % 2 ? i : j;
                if (room->depth[other] >= 0)
                    continue;
                const int32_t cost = room->costs[i * tree->stride + j - first_demand];
                room->depth[other] = room->depth[node] + 1;
                room->parent[other] = node;
                room->flow[other] = room->edge_flow[edge];
                room->potential[other] = room->potential[node] + (half % 2 ? cost : -cost);
                stack[top++] = other;
            }
        }
        while (unseen < tree->n && room->depth[unseen] >= 0)
            unseen++;
        if (unseen == tree->n)
            break;
        room->depth[unseen] = 1;
        room->parent[unseen] = tree->root;
        room->flow[unseen] = 0;
        room->potential[unseen] = room->costs[unseen * tree->stride + tree->root - first_demand];
        stack[top++] = unseen;
    }
    room->next[last] = tree->root;
    room->previous[tree->root] = last;
    for (int64_t j = tree->m; j < tree->stride; j++)
        room->potential[first_demand + j] = 0;
}

struct two_doubles {
    double high;
    double low;
};

/* The sum and its rounding error: D. E. Knuth, "The Art of Computer Programming", section 4.2.2. */
static inline struct two_doubles two_sum(double first, double second) {
    const double sum = first + second, part = sum - first;
    return (struct two_doubles){sum, (first - (sum - part)) + (second - part)};
}

/* Potentials of the tree for the costs as given, with twice the bits of a double, and rounded. */
static void settle_potentials(struct tree *tree, const double *costs, int64_t demands) {
    struct room *const room = tree->room;
    double *const exact = room->exact, *const rest = room->rest;
    exact[tree->root] = rest[tree->root] = 0;
    for (int32_t x = room->next[tree->root]; x != tree->root; x = room->next[x]) {
        const int32_t up = room->parent[x];
        const bool is_supply = x < tree->first_demand;
        const int32_t i = is_supply ? x : up, j = is_supply ? up : x;
        const double cost = costs[room->number[i] * demands + room->number[j]];
        struct two_doubles sum = two_sum(exact[up], is_supply ? cost : -cost);
        sum = two_sum(sum.high, sum.low + rest[up]);
        exact[x] = sum.high;
        rest[x] = sum.low;
    }
}

/* Whether no reduced cost is more negative than rounding explains. */
ALWAYS_INLINE bool is_optimal(const struct instance *instance, const struct room *room) {
    const double *restrict const v = instance->demand_potential;
    double *restrict const lower = room->lowest;
    for (int64_t j = 0; j < instance->demands; j++)
        lower[j] = v[j] - ROUNDING * fabs(v[j]);
    bool found = false;
    for (int64_t i = 0; i < instance->supplies; i++) {
        const double *restrict const row = instance->costs + i * instance->demands;
        const double u =
            instance->supply_potential[i] - ROUNDING * fabs(instance->supply_potential[i]);
        for (int64_t j = 0; j < instance->demands; j++)
            found |= row[j] - lower[j] < u;
    }
    return !found;
}

/* Pivots with the potentials of the costs as given, until none of the reduced costs is more
 * negative than rounding explains. */
static int settle(struct tree *tree, const double *costs, int64_t demands, struct stop *stop) {
    struct room *const room = tree->room;
    const double *const exact = room->exact;
    int64_t row = 0, looked_at = 0;
    for (int64_t pivots = 0; looked_at < tree->n; row = row + 1 < tree->n ? row + 1 : 0) {
        const double *const given = costs + room->number[row] * demands;
        double least = 0;
        int32_t entering = NO_NODE;
        for (int64_t j = 0; j < tree->m; j++) {
            const int64_t node = tree->first_demand + j;
            const double cost = given[room->number[node]];
            const double reduced = cost - exact[row] + exact[node];
            const double rounding = fabs(exact[row]) + fabs(exact[node]);
            if (reduced < -ROUNDING * rounding && reduced < least) {
                least = reduced;
                entering = (int32_t)node;
            }
        }
        looked_at++;
        if (entering == NO_NODE)
            continue;
        if (++pivots > pivot_limit(tree))
            return LOWSHOT_NO_OPTIMUM;
        if (pivots % PIVOTS_BETWEEN_LOOKS == 0 && stop_wanted(stop))
            return LOWSHOT_STOPPED;
        pivot(tree, (int32_t)row, entering, 0);
        settle_potentials(tree, costs, demands);
        looked_at = 0;
    }
    return LOWSHOT_OK;
}

/* Flows of the tree, from its leaves to its root, which gets what rounding leaves. */
static double settle_flows(struct tree *tree, const double *costs, int64_t demands, double *flow) {
    struct room *const room = tree->room;
    double *const left = room->weight;
    double total = 0;
    for (int32_t x = room->previous[tree->root]; x != tree->root; x = room->previous[x]) {
        const int32_t up = room->parent[x];
        if (room->flow[x] == 0 || !(left[x] > 0))
            continue;
        const bool is_supply = x < tree->first_demand;
        const int32_t i = is_supply ? x : up, j = is_supply ? up : x;
        const int64_t cell = room->number[i] * demands + room->number[j];
        flow[cell] = left[x];
        left[up] -= left[x];
        total += left[x] * costs[cell];
    }
    return total;
}

/* Potentials of the nodes of the tree, and the highest that others may have. */
static void write_potentials(const struct tree *tree, const struct instance *instance) {
    const struct room *const room = tree->room;
    const int64_t supplies = instance->supplies, demands = instance->demands;
    double *const u = instance->supply_potential, *const v = instance->demand_potential;
    for (int64_t j = 0; j < demands; j++)
        v[j] = 0;
    for (int64_t j = tree->first_demand; j < tree->first_demand + tree->m; j++)
        v[room->number[j]] = 0 - room->exact[j];
    for (int64_t i = 0; i < tree->n; i++)
        u[room->number[i]] = room->exact[i];
    for (int64_t i = 0; i < supplies && tree->n < supplies; i++) {
        if (instance->supply_weights[i] > 0)
            continue;
        u[i] = INFINITY;
        for (int64_t j = 0; j < demands; j++)
            if (tree->m == 0 || instance->demand_weights[j] > 0)
                u[i] = lesser(u[i], instance->costs[i * demands + j] - v[j]);
    }
    for (int64_t j = 0; j < demands && tree->m < demands; j++) {
        if (instance->demand_weights[j] > 0)
            continue;
        v[j] = INFINITY;
        for (int64_t i = 0; i < supplies; i++)
            v[j] = lesser(v[j], instance->costs[i * demands + j] - u[i]);
    }
}

/* The first value outside least..LARGEST, also if it is NaN; -1: none. */
ALWAYS_INLINE int64_t first_outside(const double *values, int64_t count, double least) {
    bool found = false;
    for (int64_t k = 0; k < count; k++)
        found |= !(values[k] >= least) | !(values[k] <= LARGEST);
    for (int64_t k = 0; found && k < count; k++)
        if (!(values[k] >= least && values[k] <= LARGEST))
            return k;
    return -1;
}

static double sum_of(const double *values, int64_t count) {
    double sum = 0;
    for (int64_t k = 0; k < count; k++)
        sum += values[k];
    return sum;
}

/* Solves a problem; list and column say where a fault is. */
ALWAYS_INLINE int solve_portable(const struct instance *instance, struct room *room,
                                 struct stop *stop, struct lowshot_fault *place) {
    const int64_t supplies = instance->supplies, demands = instance->demands;
    const double *const lists[] = {instance->costs, instance->supply_weights,
                                   instance->demand_weights};
    const int64_t counts[] = {supplies * demands, supplies, demands};
    for (int list = 0; list < 3; list++) {
        const int64_t bad = first_outside(lists[list], counts[list], list == 0 ? -LARGEST : 0);
        if (bad >= 0) {
            const bool is_negative = lists[list][bad] < 0 && lists[list][bad] >= -LARGEST;
            *place = (struct lowshot_fault){.list = list, .column = bad};
            return is_negative ? LOWSHOT_NEGATIVE : LOWSHOT_NOT_FINITE;
        }
    }
    const double supplied = sum_of(instance->supply_weights, supplies);
    const double demanded = sum_of(instance->demand_weights, demands);
    if (!(fabs(supplied - demanded) <= MAX_IMBALANCE * (supplied > demanded ? supplied : demanded)))
        return LOWSHOT_UNBALANCED;

    memset(instance->flow, 0, (size_t)(supplies * demands) * sizeof(double));
    *instance->total = 0;
    struct tree tree = {.room = room, .first_demand = padded(supplies)};
    take_nodes(&tree, instance, supplied, demanded);
    if (tree.n == 0) {
        write_potentials(&tree, instance);
        return LOWSHOT_OK;
    }
    take_costs(&tree, instance->costs, demands);
    choose_edges(&tree);
    hang_up(&tree);
    int32_t supply, demand, reduced;
    for (int64_t pivots = 0; find_entering(&tree, &supply, &demand, &reduced); pivots++) {
        if (pivots == pivot_limit(&tree))
            return LOWSHOT_NO_OPTIMUM;
        if ((pivots + 1) % PIVOTS_BETWEEN_LOOKS == 0 && stop_wanted(stop))
            return LOWSHOT_STOPPED;
        pivot(&tree, supply, demand, reduced);
    }
    settle_potentials(&tree, instance->costs, demands);
    write_potentials(&tree, instance);
    if (!is_optimal(instance, room)) {
        const int status = settle(&tree, instance->costs, demands, stop);
        if (status != LOWSHOT_OK)
            return status;
        write_potentials(&tree, instance);
    }
    *instance->total = settle_flows(&tree, instance->costs, demands, instance->flow);
    return LOWSHOT_OK;
}

FOR_EVERY_WIDTH(int, solve,
                (const struct instance *instance, struct room *room, struct stop *stop,
                 struct lowshot_fault *place),
                instance, room, stop, place)

static struct instance instance_of(const struct lowshot_transport *problems,
                                   const struct lowshot_transport_optima *optima, int64_t p) {
    const int64_t n = problems->supplies, m = problems->demands;
    return (struct instance){
        .supplies = n,
        .demands = m,
        .costs = problems->costs + p * n * m,
        .supply_weights = problems->supply_weights + p * n,
        .demand_weights = problems->demand_weights + p * m,
        .total = optima->total + p,
        .flow = optima->flow + p * n * m,
        .supply_potential = optima->supply_potential + p * n,
        .demand_potential = optima->demand_potential + p * m,
    };
}

int lowshot_solve_transport(const struct lowshot_transport *problems, int threads,
                            const struct lowshot_transport_optima *optima,
                            struct lowshot_fault *fault) {
    if (problems == NULL || optima == NULL)
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const int64_t count = problems->problems, n = problems->supplies, m = problems->demands;
    if (n < 1 || m < 1 || n > MAX_NODES || m > MAX_NODES || threads < 1 ||
        !matrix_fits(problems->costs, count, n * m, n * m) ||
        !matrix_fits(problems->supply_weights, count, n, n) ||
        !matrix_fits(problems->demand_weights, count, m, m) ||
        !matrix_fits(optima->flow, count, n * m, n * m) ||
        !matrix_fits(optima->supply_potential, count, n, n) ||
        !matrix_fits(optima->demand_potential, count, m, m) ||
        !matrix_fits(optima->total, count, 1, 1))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    int64_t first_bad = INT64_MAX;
    bool has_room = true;
    struct stop stop = {0};
    const int used = count < threads ? (count > 0 ? (int)count : 1) : threads;
    (void)used; /* without OpenMP */
#pragma omp parallel num_threads(used) if (used > 1)
    {
        struct room room;
        const bool made = make_room(n, m, &room);
        if (!made) {
#pragma omp atomic write
            has_room = false;
        }
#pragma omp for schedule(dynamic, 1) reduction(min : first_bad)
        for (int64_t p = 0; p < count; p++) {
            if (!made || p > first_bad || stop_wanted(&stop))
                continue;
            const struct instance instance = instance_of(problems, optima, p);
            struct lowshot_fault place;
            const int status = solve(&instance, &room, &stop, &place);
            if (status != LOWSHOT_OK && status != LOWSHOT_STOPPED)
                first_bad = p;
        }
        if (made)
            free(room.memory);
    }
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    if (!has_room)
        return report_fault(fault, LOWSHOT_NO_MEMORY, 0, 0, 0);
    if (first_bad == INT64_MAX)
        return LOWSHOT_OK;
    /* What was wrong with it. */
    struct room room;
    if (!make_room(n, m, &room))
        return report_fault(fault, LOWSHOT_NO_MEMORY, 0, 0, 0);
    const struct instance instance = instance_of(problems, optima, first_bad);
    struct lowshot_fault place = {0};
    const int status = solve(&instance, &room, &stop, &place);
    free(room.memory);
    if (status == LOWSHOT_OK) /* another thread of the program changed it during the call */
        return report_fault(fault, LOWSHOT_NO_OPTIMUM, 0, first_bad, 0);
    return report_fault(fault, status, place.list, first_bad, place.column);
}
