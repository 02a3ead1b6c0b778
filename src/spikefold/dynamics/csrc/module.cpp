// The Python module: hands a layer's tiles to threads, with the best kernels this machine runs.

#include <dlfcn.h>
#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <iterator>
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
// elsewhere it may be some of their rows. Where groups are so few that several rows fill the lanes, these
// rows are one.
struct Tiling {
    const Layer& layer;
    bool columns;
    int64_t together, all_rows, stride, width, rows, across, down;

    Tiling(const Layer& l, bool sums) : layer(l), columns(l.inner == 1) {
        together = columns && layer.groups ? std::max<int64_t>(LANES / layer.groups, 1) : 1;
        while (layer.rows % together) --together;
        all_rows = layer.rows / together;
        stride = layer.groups * layer.inner * together;
        width = columns ? LANES : layer.inner;
        rows = sums ? all_rows : std::clamp<int64_t>(SMALL_TILE / width, 1, std::max<int64_t>(all_rows, 1));
        across = columns ? (stride + LANES - 1) / LANES : layer.groups;
        down = rows ? (all_rows + rows - 1) / rows : 0;
    }

    int64_t count() const { return layer.inner ? across * down : 0; }

    Tile operator[](int64_t i) const {
        int64_t row = i / across * rows, first = i % across * width;
        int64_t piece = std::min(width, stride - first), group = first / layer.inner;
        int64_t groups = columns ? std::min(piece, layer.groups) : 1;
        return {std::min(rows, all_rows - row), piece, stride, row * stride + first, group, groups, columns};
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

// A sequence of currents by itself: float32, `[steps, rows, groups, inner]` without gaps.
using Sizes = std::array<Number, 4>;
Layer sequence(Address input, const Sizes& sizes) {
    Layer layer;
    layer.input = input;
    layer.steps = sizes[0], layer.rows = sizes[1], layer.groups = sizes[2], layer.inner = sizes[3];
    layer.input_step = layer.rows * layer.groups * layer.inner;
    return layer;
}

// Of each step and group.
void observe(Address input, Address mean, Address variance, const Sizes& sizes, int threads) {
    Layer layer = sequence(input, sizes);
    layer.current.mean = {mean, layer.groups}, layer.current.variance = {variance, layer.groups};
    Job{pick(FLOAT32).observe, layer, Tiling(layer, true), 1}.run(threads);
}

void observe_backward(Address input, Address mean, Address gain, Address shift, Address gradient, const Sizes& sizes,
                      int threads) {
    Layer layer = sequence(input, sizes);
    Norm& norm = layer.current;
    norm.mean = {mean, layer.groups}, norm.gain = {gain, layer.groups}, norm.shift = {shift, layer.groups};
    layer.grad_input = gradient;
    Job{pick(FLOAT32).observe_backward, layer, Tiling(layer, false), 1}.run(threads);
}

struct Pooling {
    void (*kernel)(const Planes&, int64_t first, int64_t count);
    const Planes& planes;
    int64_t count, at_once;
    std::atomic<int64_t> next{0};

    static void work(void* self) {
        Pooling& job = *static_cast<Pooling*>(self);
        for (int64_t i; (i = job.next.fetch_add(job.at_once)) < job.count;)
            job.kernel(job.planes, i, std::min(job.at_once, job.count - i));
    }
};

// Runs the kernel over so many planes.
void pool(void (*kernel)(const Planes&, int64_t, int64_t), const Planes& planes, int64_t count, int threads) {
    int64_t at_once = std::max<int64_t>(1, 4 * SMALL_TILE / std::max<int64_t>(1, planes.height * planes.width));
    Pooling job{kernel, planes, count, at_once};
    on_threads(Pooling::work, &job, int(std::clamp<int64_t>(count / at_once, 1, threads)));
}

// ------------------------------------------------------------------ tensors of Python

Address address(nb::handle tensor) { return nb::cast<Address>(tensor.attr("data_ptr")()); }

// Running mean and variance of `count` floats by observed ones, `steps` of each, one after another, and the `counters`
// of what was seen: r <- r + momentum (unbiased o[t] - r), rounded once from double.
void update_running(const nb::tuple& tensors, int64_t count, int64_t steps, int64_t counters, double momentum,
                    double unbiased) {
    for (int k = 0; k < 2; ++k) {
        float* r = reinterpret_cast<float*>(address(tensors[k]));
        const float* o = reinterpret_cast<const float*>(address(tensors[2 + k]));
        for (int64_t i = 0; i < count; ++i) {
            double value = r[i], factor = k ? unbiased : 1.0;
            for (int64_t t = 0; t < steps; ++t) value += momentum * (factor * double(o[t * count + i]) - value);
            r[i] = float(value);
        }
    }
    int64_t* seen = reinterpret_cast<int64_t*>(address(tensors[4]));
    for (int64_t i = 0; i < counters; ++i) seen[i] += steps;
}

// The statistics of a batch lie where forward writes them, `[2, steps, groups]`.
void take_statistics(Norm& norm, int64_t steps, int64_t groups) {
    if (!norm.batch) return;
    int64_t bytes = steps * groups * int64_t(sizeof(float)), step = steps > 1 ? groups : 0;
    norm.mean = {norm.statistics, step};
    norm.variance = {norm.statistics + bytes, step};
}

// Where tensors lie, those of `Arguments`, then as in `problem_of`; what is None stays as it is.
void place(Layer& l, const nb::tuple& tensors) {
    Norm &c = l.current, &p = l.potential;
    Address* places[] = {
        &l.input, &l.shortcut, &l.v, &l.decays,
        &c.gain.address, &c.shift.address, &p.gain.address, &p.shift.address,
        &c.mean.address, &c.variance.address, &p.mean.address, &p.variance.address, &l.thresholds.address,
        &l.spikes, &l.v_last, &c.statistics, &p.statistics, &l.grad_spikes, &l.grad_v_last,
        &l.grad_input, &l.grad_shortcut, &l.grad_v, &l.grad_decay,
        &c.grad_gain, &c.grad_shift, &p.grad_gain, &p.grad_shift,
    };
    if (tensors.size() > std::size(places)) throw nb::value_error("more tensors than a layer has");
    for (size_t i = 0; i < tensors.size(); ++i)
        if (!tensors[i].is_none()) *places[i] = address(tensors[i]);
    take_statistics(c, 1, l.groups);
    take_statistics(p, l.steps, l.groups);
}

Layer with_tensors(const nb::bytes& packed, const nb::tuple& tensors) {
    Layer layer;
    if (packed.size() != sizeof layer) throw nb::value_error("a layer of another version");
    __builtin_memcpy(&layer, packed.c_str(), sizeof layer);
    place(layer, tensors);
    return layer;
}

// A layer most of whose tensors stay where they are.
struct Placed {
    Layer layer;

    Placed(const nb::bytes& packed, const nb::tuple& tensors) : layer(with_tensors(packed, tensors)) {}

    void run(const nb::tuple& changing, int threads) const {
        Layer placed = layer;
        place(placed, changing);
        nb::gil_scoped_release released;
        forward(placed, threads);
    }
};

}  // namespace
}  // namespace spikefold

NB_MODULE(_native, m) {
    using namespace spikefold;
    m.doc() = "Compiled kernels of the neuron; see dynamics/_kernels/_cpu.py.";
    using Run = void (*)(const Layer&, int);
    auto define = [&](const char* name, Run run) {
        m.def(name, [run](nb::bytes numbers, nb::tuple tensors, int threads) {
            const Layer layer = with_tensors(numbers, tensors);
            nb::gil_scoped_release released;
            run(layer, threads);
        }, nb::arg("numbers"), nb::arg("tensors"), nb::arg("threads"));
    };
    define("forward", &forward);
    define("backward", &backward);
    nb::class_<Placed>(m, "Placed")
        .def(nb::init<nb::bytes, nb::tuple>(), nb::arg("numbers"), nb::arg("tensors"))
        .def("forward", &Placed::run, nb::arg("changing"), nb::arg("threads"));
    auto define_pool = [&](const char* name, auto Kernels::*kernel) {
        m.def(name, [kernel](Address input, Address output, int64_t count, int64_t height, int64_t width, int threads) {
            nb::gil_scoped_release released;
            pool(pick(FLOAT32).*kernel, {input, output, height, width}, count, threads);
        }, nb::arg("input"), nb::arg("output"), nb::arg("count"), nb::arg("height"), nb::arg("width"), nb::arg("threads"));
    };
    define_pool("average", &Kernels::average);
    define_pool("average_backward", &Kernels::average_backward);
    using Released = nb::call_guard<nb::gil_scoped_release>;
    m.def("observe", &observe, nb::arg("input"), nb::arg("mean"), nb::arg("variance"), nb::arg("sizes"),
          nb::arg("threads"), Released());
    m.def("observe_backward", &observe_backward, nb::arg("input"), nb::arg("mean"), nb::arg("gain"), nb::arg("shift"),
          nb::arg("gradient"), nb::arg("sizes"), nb::arg("threads"), Released());
    m.def("update_running", &update_running, nb::arg("tensors"), nb::arg("count"), nb::arg("steps"),
          nb::arg("seen"), nb::arg("momentum"), nb::arg("unbiased"));
    m.def("limit_instruction_set", &limit_instruction_set, nb::arg("limit"),
          "Use at most 0 the baseline, 1 AVX2, 2 AVX-512; the name of what is used.");
}
