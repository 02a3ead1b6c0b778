// What a kernel is asked to do: the neurons of one layer over all time steps, forward or backward.
//
// A step of a tensor lies in memory as [rows, groups, inner]: [N, C, H·W] contiguous, [N·H·W, C, 1]
// channels last or [N, F, 1]; element-wise parameters make every element a group, [N, C·H·W, 1].
// Parameters and statistics are one float a group; a statistic is taken over rows and inner.
// A parameter is an address and how far it is from a time step to the next (0: the same at all).
// `_cpu.py` packs these structs, all of whose members have eight bytes, in the order in which they stand
// here, once for all layers of a geometry; addresses come with each call. 0 stands for an absent tensor.
#pragma once

#include <cstdint>

namespace spikefold {

using Address = std::int64_t;
using Number = std::int64_t;

enum SurrogateShape { LOGISTIC, BOX, TRIANGLE, RATIONAL };
enum Dtype { FLOAT32, BFLOAT16, FLOAT16 };

struct Parameter {
    Address address = 0;
    Number step = 0;

    explicit operator bool() const { return address; }
    float& operator()(int64_t t, int64_t group) const { return reinterpret_cast<float*>(address)[t * step + group]; }
};

// (a - mean) * gain / sqrt(variance + eps) + shift. No mean is 0, no variance leaves the gain alone,
// no gain is 1, no shift is 0.
struct Norm {
    Number present = 0;
    Number batch = 0;  // statistics of this batch: forward writes mean and variance, backward reads them
    double eps = 0;
    Parameter gain, shift, mean, variance;
    Address statistics = 0;                 // of this batch: means, then variances
    Address grad_gain = 0, grad_shift = 0;  // of gain's and shift's steps

    bool varies() const { return gain.step || shift.step || mean.step || variance.step; }
};

struct Layer {
    Number steps = 1, rows = 0, groups = 0, inner = 1;
    Number input_step = 0, shortcut_step = 0;  // elements from a step to the next; 0: the same at all steps
    Number dtype = FLOAT32;                    // of input, shortcut, spikes and their gradients
    Address decays = 0;                        // one a group, in the place of `decay`
    double decay = 0;
    double threshold = 0;  // what the soft reset subtracts; the threshold itself, unless there are `thresholds`
    Number hard = 1, detach_reset = 0;
    Number shape = LOGISTIC;  // the surrogate's derivative: height * shape(scale * z) where |z| <= window
    double scale = 1, height = 1, window = 0;
    Norm current, potential;  // current: after the connection; potential: MPBN, [steps, groups] if batch
    Address input = 0, shortcut = 0, v = 0;
    Parameter thresholds;
    Address spikes = 0, v_last = 0;
    Address grad_spikes = 0, grad_v_last = 0, grad_input = 0, grad_shortcut = 0, grad_v = 0, grad_decay = 0;
};

// What one thread handles at a time, over all steps: `rows` pieces of `width` elements, `stride` apart,
// the first at `offset`. Columns: a piece is up to LANES elements, a lane for each: of as many groups side by side,
// or of fewer, again and again. Else: a piece is the inner elements of one group.
struct Tile {
    int64_t rows, width, stride, offset, group, groups;  // `groups` of them, from `group` on
    bool columns;
};

constexpr int64_t LANES = 16;

// Images of one channel, one after another.
struct Planes {
    Address input, output;
    Number height, width;  // of the larger ones
};

struct Kernels {
    void (*forward)(const Layer&, const Tile&, float* scratch);
    void (*backward)(const Layer&, const Tile&, float* scratch);
    void (*observe)(const Layer&, const Tile&, float*);  // of the input alone: statistics of each step
    void (*observe_backward)(const Layer&, const Tile&, float*);
    void (*average)(const Planes&, int64_t first, int64_t count);
    void (*average_backward)(const Planes&, int64_t first, int64_t count);
};

// Floats of scratch for a tile.
inline int64_t padded(const Tile& tile) {
    int64_t count = tile.rows * (tile.columns ? LANES : tile.width);
    return (count + LANES - 1) / LANES * LANES;
}

// One for each instruction set the library is compiled for.
namespace baseline {
Kernels kernels(int dtype);
}
namespace avx2 {
Kernels kernels(int dtype);
}
namespace avx512 {
Kernels kernels(int dtype);
}

}  // namespace spikefold
