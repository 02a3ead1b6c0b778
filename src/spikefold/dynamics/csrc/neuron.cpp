// The fused neuron on a CPU: charge, statistics, normalize, fire, reset, and their backward pass.
//
// A tile is what one thread handles at a time, over all time steps, its membrane in cache: one
// channel of [N, C, S], or a block of columns of [R, C] (channels last, element-wise, [N, F]).
// A statistic belongs to one tile, so results do not depend on the number of threads.
// Plain C at the border: Python calls it through ctypes; neither Python nor torch is linked.

#include <dlfcn.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <thread>
#include <vector>

namespace {

constexpr int64_t MAX_COLUMNS = 256, CHUNK = 1024, CHUNK_ROWS = 64, LINE = 16;
constexpr int64_t TILE = 1 << 15;  // floats that should stay in the second cache

enum { TANH, RECTANGLE, TRIANGLE, SIGMOID, ATAN };
enum { FLOAT32, BFLOAT16, FLOAT16 };

struct bfloat16 {
    uint16_t bits;
};

inline float bits_to_float(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}
inline uint32_t float_to_bits(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}
inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a < b ? b : a; }

}  // namespace

extern "C" {

// The fields of these structures are those of dynamics/_kernels.py, in this order.
struct Neuron {
    float decay, threshold, a, factor;  // a, factor: constants of the surrogate
    int32_t surrogate, hard, detach;
};

struct Forward {
    Neuron neuron;
    float eps;
    int32_t dtype;
    int64_t steps, rows, parameters, space;  // [T, N, C, S]; [T, R, C] is S = 1
    int64_t step;                            // elements of one time step in memory, here also x's stride over T
    const void* x;
    void* spikes;
    const float *v_first, *mean, *gain, *shift, *threshold;
    float *v_last, *means, *variances;  // means: null with fixed statistics
};

struct Backward {
    Forward forward;
    const void* grad_spikes;
    void* grad_x;
    const float* grad_v_last;
    float* grad_v_first;
    double *grad_gain, *grad_shift;  // zeros at first
};
}

namespace {

struct Tile {
    int64_t rows, len, stride, base, parameter;
    bool columns;
};

struct Kernels {
    void (*forward)(const Tile&, const Forward&, float*);
    void (*backward)(const Tile&, const Backward&, float*);
};

namespace baseline {
#include "neuron.inc"
}

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define SPIKEFOLD_X86 1
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi,bmi2")
namespace avx2 {
#include "neuron.inc"
}
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi,bmi2")
namespace avx512 {
#include "neuron.inc"
}
#pragma GCC pop_options
#endif

int instruction_set() {
#ifdef SPIKEFOLD_X86
    __builtin_cpu_init();
    bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
              __builtin_cpu_supports("bmi2");
    bool v4 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return v3 ? (v4 ? 2 : 1) : 0;
#else
    return 0;
#endif
}

std::atomic<int> chosen{instruction_set()};

Kernels pick(int dtype) {
#ifdef SPIKEFOLD_X86
    if (chosen == 2) return avx512::kernels(dtype);
    if (chosen == 1) return avx2::kernels(dtype);
#endif
    return baseline::kernels(dtype);
}

// How a tensor falls into tiles. Where nothing is summed over the batch, tiles may be smaller than
// a channel: they are then single planes, or blocks of whole rows.
struct Tiling {
    const Forward& f;
    bool columns, whole;
    int64_t block, across, count;

    Tiling(const Forward& forward, bool sums) : f(forward), columns(f.space == 1), whole(sums) {
        if (!columns) {
            block = whole ? f.rows : 1;
        } else if (whole) {
            int64_t fit = TILE / larger(f.rows, 1) / LINE * LINE;
            block = smaller(larger(fit, LINE), MAX_COLUMNS);
        } else {
            block = larger(1, smaller(f.rows, TILE / MAX_COLUMNS / 4));
        }
        int64_t width = whole ? block : MAX_COLUMNS;
        across = columns ? (f.parameters + width - 1) / width : f.parameters;
        count = across * (whole ? 1 : (f.rows + block - 1) / block);
    }

    int64_t size() const {
        int64_t width = whole ? block : MAX_COLUMNS;
        return columns ? (whole ? f.rows : block) * smaller(width, f.parameters) : block * f.space;
    }

    Tile operator[](int64_t i) const {
        int64_t first_row = whole ? 0 : (i / across) * block;
        int64_t rows = whole ? f.rows : smaller(block, f.rows - first_row);
        int64_t stride = f.parameters * f.space;
        if (!columns) {
            int64_t channel = i % across;
            return {rows, f.space, stride, first_row * stride + channel * f.space, channel, false};
        }
        int64_t width = whole ? block : MAX_COLUMNS, column = (i % across) * width;
        return {rows, smaller(width, f.parameters - column), stride, first_row * stride + column, column, true};
    }
};

// Runs `work(data)` on several threads: on torch's own pool where it is GNU OpenMP, which is found
// among the libraries already loaded, so that no second pool fights it for the cores.
void on_threads(void (*work)(void*), void* data, int threads) {
    using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
    static const Parallel parallel = reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    if (threads <= 1) return work(data);
    if (parallel) return parallel(work, data, unsigned(threads), 0);
    std::vector<std::thread> others;
    for (int i = 1; i < threads; ++i) others.emplace_back(work, data);
    work(data);
    for (std::thread& other : others) other.join();
}

template <typename Arguments>
struct Job {
    void (*kernel)(const Tile&, const Arguments&, float*);
    const Arguments& arguments;
    const Tiling& tiling;
    int64_t scratch;
    std::atomic<int64_t> next{0};
    std::atomic<bool> failed{false};

    static void work(void* self) {
        Job& job = *static_cast<Job*>(self);
        std::unique_ptr<float[]> scratch(new (std::nothrow) float[size_t(larger(job.scratch, 1))]);
        if (!scratch) {
            job.failed = true;
            return;
        }
        for (int64_t i; (i = job.next++) < job.tiling.count;)
            job.kernel(job.tiling[i], job.arguments, scratch.get());
    }

    int run(int threads) {
        on_threads(work, this, int(smaller(threads, tiling.count)));
        return failed ? 1 : 0;
    }
};

}  // namespace

extern "C" {

// All return 0, or 1 where there is not enough memory.
int spikefold_forward(const Forward* f, int threads) {
    Tiling tiling(*f, f->means != nullptr);
    Job<Forward> job{pick(f->dtype).forward, *f, tiling, tiling.size()};
    return job.run(threads);
}

int spikefold_backward(const Backward* b, int threads) {
    Tiling tiling(b->forward, true);
    Job<Backward> job{pick(b->forward.dtype).backward, *b, tiling, tiling.size() * (b->forward.steps + 2)};
    return job.run(threads);
}

// 0 baseline, 1 AVX2, 2 AVX-512: the best one this machine has, at most `limit`.
int spikefold_instruction_set(int limit) {
    int best = instruction_set();
    chosen = best < limit ? best : limit;
    return chosen;
}

// So that a caller can see that both sides mean the same structures.
int64_t spikefold_layout() { return int64_t(sizeof(Forward)) << 32 | int64_t(sizeof(Backward)); }
}
