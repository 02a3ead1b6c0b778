// What a kernel is asked to do: the neurons of one layer over all time steps, forward or backward.
//
// A step of a tensor lies in memory as [rows, groups, inner]: [N, C, H·W] contiguous, [N·H·W, C, 1]
// channels last or [N, F, 1]; element-wise parameters make every element a group, [N, C·H·W, 1].
// Parameters and statistics are one float a group; a statistic is taken over rows and inner.
// Pointers are integers here because Python hands them over; 0 stands for an absent tensor.
#pragma once

#include <cstdint>

namespace spikefold {

using Address = std::uintptr_t;

enum Surrogate { TANH, RECTANGLE, TRIANGLE, SIGMOID, ATAN };
enum Dtype { FLOAT32, BFLOAT16, FLOAT16 };

// (a - mean) * gain / sqrt(variance + eps) + shift. No mean is 0, no variance leaves the gain alone,
// no gain is 1, no shift is 0.
struct Norm {
    bool present = false;
    bool batch = false;  // statistics of this batch: forward writes mean and variance, backward reads them
    double eps = 0;
    Address gain = 0, shift = 0, mean = 0, variance = 0;
    Address grad_gain = 0, grad_shift = 0;
};

struct Layer {
    int64_t steps = 1, rows = 0, groups = 0, inner = 1;
    int64_t input_step = 0, shortcut_step = 0;  // elements from a step to the next; 0: the same at all steps
    int dtype = FLOAT32;                        // of input, shortcut, spikes and their gradients
    float decay = 0;
    bool hard = true, detach_reset = false;
    int surrogate = TANH;
    float slope = 1;       // the surrogate's parameter
    float threshold = 0;   // what the soft reset subtracts; the threshold itself, unless `thresholds` has one a group
    Norm current, potential;  // current: after the connection; potential: MPBN, [steps, groups] if batch
    Address input = 0, shortcut = 0, v = 0, thresholds = 0;
    Address spikes = 0, v_last = 0;
    Address grad_spikes = 0, grad_v_last = 0, grad_input = 0, grad_shortcut = 0, grad_v = 0;
};

// What one thread handles at a time, over all steps: `rows` pieces of `width` elements, `stride` apart,
// the first at `offset`. Columns: a piece is up to LANES groups side by side, a lane for each. Else: a
// piece is (a part of) the inner elements of one group.
struct Tile {
    int64_t rows, width, stride, offset, group;
    bool columns;
};

constexpr int64_t LANES = 16;

struct Kernels {
    void (*forward)(const Layer&, const Tile&, float* scratch);
    void (*backward)(const Layer&, const Tile&, float* scratch);
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
