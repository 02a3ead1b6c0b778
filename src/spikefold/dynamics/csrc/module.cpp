// The Python module: hands a layer's tiles to threads, with the best kernels this machine runs.

#include <dlfcn.h>
#include <nanobind/nanobind.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#include "layer.h"

namespace nb = nanobind;

namespace spikefold {
namespace {

// ------------------------------------------------------------------ instruction sets

enum { BASELINE, AVX2, AVX512 };
constexpr const char* NAMES[] = {"baseline", "avx2", "avx512"};

int supported() {
#ifdef SPIKEFOLD_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return AVX512;
    if (__builtin_cpu_supports("avx2")) return AVX2;
#endif
    return BASELINE;
}

std::atomic<int> chosen{supported()};

Kernels pick(int64_t dtype) {
#ifdef SPIKEFOLD_X86
    if (chosen == AVX512) return avx512::kernels(int(dtype));
    if (chosen == AVX2) return avx2::kernels(int(dtype));
#endif
    return baseline::kernels(int(dtype));
}

const char* limit_instruction_set(int limit) {
    chosen = std::max(int(BASELINE), std::min(supported(), limit));
    return NAMES[chosen];
}

// ------------------------------------------------------------------ tiles

constexpr int64_t SMALL_TILE = 4096;  // elements; fewer than this do not pay for a tile

// How a step falls into tiles. Where something is summed over the batch a tile is all of its groups;
// elsewhere it may be some of their rows.
struct Tiling {
    const Layer& layer;
    bool columns;
    int64_t width, rows, across, down;

    Tiling(const Layer& l, bool sums) : layer(l), columns(l.inner == 1) {
        width = columns ? LANES : layer.inner;
        rows = sums ? layer.rows : std::clamp<int64_t>(SMALL_TILE / width, 1, std::max<int64_t>(layer.rows, 1));
        across = columns ? (layer.groups + LANES - 1) / LANES : layer.groups;
        down = rows ? (layer.rows + rows - 1) / rows : 0;
    }

    int64_t count() const { return layer.inner ? across * down : 0; }

    Tile operator[](int64_t i) const {
        int64_t row = i / across * rows, group = i % across * (columns ? LANES : 1);
        int64_t stride = layer.groups * layer.inner;
        int64_t piece = columns ? std::min(LANES, layer.groups - group) : layer.inner;
        return {std::min(rows, layer.rows - row), piece, stride, row * stride + group * layer.inner, group, columns};
    }
};

// ------------------------------------------------------------------ threads

// Runs `work(data)` on several threads: on torch's own pool where that is GNU OpenMP, found among the
// libraries already loaded, so that no second pool fights it for the cores.
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

struct Job {
    void (*kernel)(const Layer&, const Tile&, float*);
    const Layer& layer;
    Tiling tiling;
    int64_t scratch;  // floats a thread needs
    std::atomic<int64_t> next{0};
    std::atomic<bool> failed{false};

    static void work(void* self) {
        Job& job = *static_cast<Job*>(self);
        std::unique_ptr<float[]> scratch(new (std::nothrow) float[size_t(job.scratch)]);
        if (!scratch) {
            job.failed = true;
            return;
        }
        for (int64_t i; (i = job.next++) < job.tiling.count();)
            job.kernel(job.layer, job.tiling[i], scratch.get());
    }

    void run(int threads) {
        if (!tiling.count()) return;
        int64_t elements = layer.steps * layer.rows * layer.groups * layer.inner;
        int64_t useful = std::min(tiling.count(), elements / SMALL_TILE);
        on_threads(work, this, int(std::clamp<int64_t>(useful, 1, threads)));
        if (failed) throw std::bad_alloc();
    }
};

void forward(const Layer& layer, int threads) {
    Tiling tiling(layer, layer.current.batch || layer.potential.batch);
    int64_t scratch = tiling.count() && layer.potential.batch ? padded(tiling[0]) : 1;
    Job{pick(layer.dtype).forward, layer, tiling, scratch}.run(threads);
}

void backward(const Layer& layer, int threads) {
    Tiling tiling(layer, true);
    int64_t scratch = tiling.count() ? padded(tiling[0]) * (layer.steps + 2) : 0;
    Job{pick(layer.dtype).backward, layer, tiling, scratch}.run(threads);
}

// For each step: r <- r + momentum (unbiased o[t] - r), rounded once from double.
void update_running(Address running, Address observed, int64_t count, int64_t steps, double momentum,
                    double unbiased) {
    float* r = reinterpret_cast<float*>(running);
    const float* o = reinterpret_cast<const float*>(observed);
    for (int64_t i = 0; i < count; ++i) {
        double value = r[i];
        for (int64_t t = 0; t < steps; ++t) value += momentum * (unbiased * double(o[t * count + i]) - value);
        r[i] = float(value);
    }
}

}  // namespace
}  // namespace spikefold

NB_MODULE(_native, m) {
    using namespace spikefold;
    m.doc() = "Compiled kernels of the neuron; see dynamics/_kernels/_cpu.py.";
    using Run = void (*)(const Layer&, int);
    auto define = [&](const char* name, Run run) {
        m.def(name, [run](nb::bytes packed, int threads) {
            Layer layer;
            if (packed.size() != sizeof layer) throw nb::value_error("a layer of another version");
            __builtin_memcpy(&layer, packed.c_str(), sizeof layer);
            nb::gil_scoped_release released;
            run(layer, threads);
        }, nb::arg("layer"), nb::arg("threads"));
    };
    define("forward", &forward);
    define("backward", &backward);
    m.def("update_running", &update_running, nb::arg("running"), nb::arg("observed"), nb::arg("count"),
          nb::arg("steps"), nb::arg("momentum"), nb::arg("unbiased"),
          "A running statistic of `count` floats, in place, by `steps` observations one after another.");
    m.def("limit_instruction_set", &limit_instruction_set, nb::arg("limit"),
          "Use at most 0 the baseline, 1 AVX2, 2 AVX-512; the name of what is used.");
}
