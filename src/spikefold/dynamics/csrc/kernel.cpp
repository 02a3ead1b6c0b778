// The neurons of a layer over one tile, forward and backward; compiled once for each instruction set.
//
// dynamics/_neuron.py is the definition. Every operation of the forward pass rounds once, as there: build
// with -ffp-contract=off. Backward recomputes the potentials from the input. A tile lies in scratch as
// floats, one after another (columns: LANES a row), padded to whole blocks of LANES.

#include <type_traits>
#include <vector>

#include "layer.h"

#ifndef SPIKEFOLD_NAMESPACE
#define SPIKEFOLD_NAMESPACE baseline
#endif

namespace spikefold {
namespace SPIKEFOLD_NAMESPACE {
namespace {

#include "vector.h"
#include "surrogate.h"

constexpr int64_t SEGMENT = 1024;     // elements handled at a time: they stay in the first cache
constexpr int64_t DIRECT = 128;       // pieces at least so long are used where they lie

template <typename T>
T* pointer(Address address) {
    return reinterpret_cast<T*>(address);
}
inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// ------------------------------------------------------------------ walking over a tile

// Blocks of LANES; the last one may be cut off: `f(i, keep)`, where keep(k, x) is x without what is beyond.
struct KeepAll {
    Vector operator()(int, Vector x) const { return x; }
};
struct KeepFirst {
    int64_t count;
    Vector operator()(int k, Vector x) const {
        Mask place;
        for (int l = 0; l < WIDTH; ++l) place[l] = k * WIDTH + l;
        return select(place < int32_t(count), x, fill(0.f));
    }
};
template <typename F>
inline void blocks(int64_t count, F f) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) f(i, KeepAll{});
    if (i < count) f(i, KeepFirst{count - i});
}

struct Shape {
    const Tile& tile;
    int64_t piece, count;  // elements of a piece and of the tile in scratch
    bool dense;            // the pieces follow each other without a gap
    bool direct;           // float pieces are whole blocks, used where they lie

    explicit Shape(const Tile& t)
        : tile(t), piece(t.columns ? LANES : t.width), count(t.rows * piece),
          dense(t.width == t.stride && t.width == piece && count % LANES == 0),
          direct(dense || (!t.columns && piece >= DIRECT && piece % LANES == 0)) {}

    // `f(i, n)`: elements i to i + n of the tile.
    template <typename F>
    void segments(F f) const {
        if (direct && !dense) {
            for (int64_t row = 0; row < tile.rows; ++row)
                for (int64_t j = 0; j < piece; j += SEGMENT) f(row * piece + j, smaller(SEGMENT, piece - j));
        } else {
            for (int64_t i = 0; i < count; i += SEGMENT) f(i, smaller(SEGMENT, count - i));
        }
    }

    int64_t place(int64_t i) const { return i / piece * tile.stride + i % piece; }

    // Where what follows elements first to first + n lies. The pieces of a tile lie far apart, each too
    // short for the processor to see where it goes on, so loops ask for what comes next as they go.
    int64_t place_after(int64_t first, int64_t n) const { return place(first + n < count ? first + n : first); }

    // `f(i, n, place)`: the part of every piece that lies in elements first to first + count.
    template <typename F>
    void pieces(int64_t first, int64_t count, F f) const {
        int64_t column = first % piece, place = first / piece * tile.stride;
        for (int64_t i = 0; i < count; column = 0, place += tile.stride) {
            int64_t n = smaller(piece - column, count - i);
            f(i, smaller(n, tile.width - column), place + column);
            i += n;
        }
    }
};

// Pieces are often short (small images, columns): whole vectors, the last one over what is there already, then
// beat a call of memcpy.
template <int Bytes>
inline bool copy_by(const void* from, void* to, int64_t bytes) {
    if (bytes < Bytes) return false;
    auto move = [&](int64_t i) { __builtin_memcpy(static_cast<char*>(to) + i, static_cast<const char*>(from) + i, Bytes); };
    for (int64_t i = 0; i + Bytes <= bytes; i += Bytes) move(i);
    if (bytes % Bytes) move(bytes - Bytes);
    return true;
}
inline void copy(const float* from, float* to, int64_t n) {
    int64_t bytes = n * int64_t(sizeof(float));
    copy_by<LANES * 4>(from, to, bytes) || copy_by<16>(from, to, bytes) || copy_by<4>(from, to, bytes);
}
inline void widen(const float* from, float* to, int64_t n) { copy(from, to, n); }
inline void narrow(const float* from, float* to, int64_t n) { copy(from, to, n); }
template <typename X>
inline void widen(const X* __restrict from, float* __restrict to, int64_t n) {
    for (int64_t j = 0; j < n; ++j) to[j] = widen(from[j]);
}
template <typename X>
inline void narrow(const float* __restrict from, X* __restrict to, int64_t n) {
    for (int64_t j = 0; j < n; ++j) narrow(from[j], to[j]);
}

constexpr float ZEROS[SEGMENT + LANES] = {};

// Elements of a tensor in memory as floats, a segment at a time; zeros, where there is none.
template <typename X>
struct Reader {
    const Shape& shape;
    const X* base;
    const float* ahead = ZEROS;
    float buffer[SEGMENT + LANES];

    Reader(const Shape& s, Address address, int64_t step) : shape(s), base(pointer<const X>(address)) {
        if (base) base += step + s.tile.offset;
    }

    // called block by block: a whole piece at once fills the processor's line buffers
    void prefetch(int64_t i) const { __builtin_prefetch(ahead + i, 0); }

    const float* operator()(int64_t first, int64_t n) {
        if (!base) return ZEROS;
        if constexpr (sizeof(X) == 4)
            if (shape.direct) {
                ahead = base + shape.place_after(first, n);
                return base + shape.place(first);
            }
        const bool gaps = shape.tile.width < shape.piece;  // columns without a group
        for (int64_t i = gaps ? 0 : n; i < n + LANES; ++i) buffer[i] = 0.f;
        shape.pieces(first, n, [&](int64_t i, int64_t width, int64_t place) {
            widen(base + place, buffer + i, width);
        });
        return buffer;
    }
};

// Where floats go that belong into memory: `target`, then `flush`.
template <typename X>
struct Writer {
    const Shape& shape;
    X* base;
    float* ahead = buffer;
    float buffer[SEGMENT + LANES];

    Writer(const Shape& s, Address address, int64_t step) : shape(s), base(pointer<X>(address)) {
        if (base) base += step + s.tile.offset;
    }

    void prefetch(int64_t i) const { __builtin_prefetch(ahead + i, 1); }

    float* target(int64_t first, int64_t n) {
        if constexpr (sizeof(X) == 4)
            if (base && shape.direct) {
                ahead = base + shape.place_after(first, n);
                return base + shape.place(first);
            }
        return buffer;
    }

    void flush(const float* from, int64_t first, int64_t n) {
        if (!base) return;
        if constexpr (sizeof(X) == 4)
            if (from == base + shape.place(first)) return;
        shape.pieces(first, n, [&](int64_t i, int64_t width, int64_t place) {
            narrow(from + i, base + place, width);
        });
    }
};

// ------------------------------------------------------------------ statistics and parameters

// Sums in double of float sums over segments, a lane each.
struct Sums {
    double lane[LANES] = {};
    void add(const Lanes& partial) {
        for (int k = 0; k < PARTS; ++k)
            for (int l = 0; l < WIDTH; ++l) lane[k * WIDTH + l] += double(partial.part[k][l]);
    }
    // The sums of a tile's groups, in the first lanes.
    void join(const Tile& tile) {
        if (!tile.columns) return halve<LANES / 2>();
        for (int64_t l = tile.groups; l < tile.width; ++l) lane[l % tile.groups] += lane[l];
    }
    template <int Half>
    void halve() {
        for (int l = 0; l < Half; ++l) lane[l] += lane[l + Half];
        if constexpr (Half > 1) halve<Half / 2>();
    }
};

// A value for each lane: of its group in columns, else of the tile's only group.
template <typename F>
void for_lanes(const Tile& tile, F f) {
    for (int64_t l = 0; l < (tile.columns ? LANES : 1); ++l) f(l, tile.group + l % tile.groups);
}
template <typename F>
Lanes lanes(const Tile& tile, F f) {
    if (!tile.columns) return Lanes(f(0));
    float value[LANES];
    for (int64_t l = 0; l < LANES; ++l) value[l] = f(l);
    return Lanes(value);
}

// The parameters of a norm for the groups of a tile.
struct Affine {
    Lanes mean, scale, shift;

    Affine(const Norm& norm, const Tile& tile, int64_t t) {
        float m[LANES], g[LANES], b[LANES];
        for_lanes(tile, [&](int64_t l, int64_t group) {
            double deviation = norm.variance ? __builtin_sqrt(double(norm.variance(t, group)) + norm.eps) : 1.0;
            m[l] = norm.mean ? norm.mean(t, group) : 0.f;
            g[l] = float((norm.gain ? double(norm.gain(t, group)) : 1.0) / deviation);
            b[l] = norm.shift ? norm.shift(t, group) : 0.f;
        });
        mean = lanes(tile, [&](int64_t l) { return m[l]; });
        scale = lanes(tile, [&](int64_t l) { return g[l]; });
        shift = lanes(tile, [&](int64_t l) { return b[l]; });
    }

    Vector centered(int k, Vector a) const { return a - mean.part[k]; }
    Vector operator()(int k, Vector a) const { return centered(k, a) * scale.part[k] + shift.part[k]; }
};

// What is compared with gain * u where thresholds were folded, polarity * theta: the gain is the polarity then.
inline Lanes thresholds(const Layer& layer, const Tile& tile, int64_t t) {
    const Parameter &theta = layer.thresholds, &polarity = layer.potential.gain;
    float threshold[LANES];
    for_lanes(tile, [&](int64_t l, int64_t group) {
        threshold[l] = theta ? theta(t, group) * (polarity ? polarity(t, group) : 1.f) : float(layer.threshold);
    });
    return lanes(tile, [&](int64_t l) { return threshold[l]; });
}

inline Lanes decays(const Layer& layer, const Tile& tile) {
    float decay[LANES];
    for_lanes(tile, [&](int64_t l, int64_t group) {
        decay[l] = layer.decays ? pointer<float>(layer.decays)[group] : float(layer.decay);
    });
    return lanes(tile, [&](int64_t l) { return decay[l]; });
}

// When a tile's neurons fire at time step t.
struct Step {
    Affine norm;
    Lanes threshold;

    Step(const Layer& layer, const Tile& tile, int64_t t)
        : norm(layer.potential, tile, t), threshold(thresholds(layer, tile, t)) {}
};

// Something of every time step: made once, for all steps where it does not differ from one to the next.
template <typename T>
struct BySteps {
    T first;
    std::vector<T> later;

    template <typename Make>
    BySteps(bool differ, int64_t steps, Make make) : first(make(0)) {
        if (differ) later.reserve(std::size_t(steps - 1));
        for (int64_t t = 1; differ && t < steps; ++t) later.push_back(make(t));
    }
    const T& operator()(int64_t t) const { return t && !later.empty() ? later[std::size_t(t - 1)] : first; }
};

inline BySteps<Affine> current_maps(const Layer& layer, const Tile& tile) {
    return {layer.current.varies(), layer.steps, [&](int64_t t) { return Affine(layer.current, tile, t); }};
}
inline BySteps<Step> firing_steps(const Layer& layer, const Tile& tile) {
    return {layer.potential.varies() || layer.thresholds.step, layer.steps,
            [&](int64_t t) { return Step(layer, tile, t); }};
}

// Each group of a tile once.
template <typename F>
void for_groups(const Tile& tile, F f) {
    for (int64_t l = 0; l < tile.groups; ++l) f(l, tile.group + l);
}

// Mean and biased variance from the sum; `squares(mean)` gives the sums of squares around it.
template <typename F>
void write_statistics(const Norm& norm, const Shape& shape, int64_t t, int64_t samples, Sums sum, F squares) {
    float mean[LANES];
    sum.join(shape.tile);
    for_lanes(shape.tile, [&](int64_t l, int64_t group) {
        mean[l] = float(sum.lane[group - shape.tile.group] / double(samples));
    });
    Sums square = squares(lanes(shape.tile, [&](int64_t l) { return mean[l]; }));
    square.join(shape.tile);
    for_groups(shape.tile, [&](int64_t l, int64_t group) {
        double error = sum.lane[l] / double(samples) - double(mean[l]);  // of the rounded mean
        double variance = square.lane[l] / double(samples) - error * error;
        norm.mean(t, group) = mean[l];
        norm.variance(t, group) = float(variance < 0 ? 0 : variance);
    });
}

// variance + eps, or 1: what a group's gradients are divided by.
inline double spread_of(const Norm& norm, int64_t t, int64_t group) {
    return norm.variance ? double(norm.variance(t, group)) + norm.eps : 1.0;
}

// Elements of each of a tile's groups.
inline int64_t samples_of(const Shape& shape) { return shape.tile.rows * shape.tile.width / shape.tile.groups; }

#include "forward.h"
#include "backward.h"
#include "pool.h"

template <typename X>
Kernels kernels_of() {
    return {forward<X>, backward<X>, observe, observe_backward, average, average_backward};
}

}  // namespace

Kernels kernels(int dtype) {
    switch (dtype) {
        case BFLOAT16: return kernels_of<BFloat16>();
        case FLOAT16: return kernels_of<Half>();
        default: return kernels_of<float>();
    }
}

}  // namespace SPIKEFOLD_NAMESPACE
}  // namespace spikefold
