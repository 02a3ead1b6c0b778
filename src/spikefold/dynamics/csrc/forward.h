// Currents, charge, statistics, normalize, fire, reset. Included by kernel.cpp.

// The steps that differ: one, where the input is the same at all.
inline int64_t input_steps(const Layer& layer) { return layer.input_step ? layer.steps : 1; }

// The sum of f(part, elements) over the input at the steps from `begin` to `end`.
template <typename X, typename F>
Sums sum_input(const Layer& layer, const Shape& shape, int64_t begin, int64_t end, F f) {
    Sums sum;
    for (int64_t t = begin; t < end; ++t) {
        Reader<X> read(shape, layer.input, t * layer.input_step);
        shape.segments([&](int64_t first, int64_t n) {
            const float* y = read(first, n);
            Lanes partial;
            blocks(n, [&](int64_t i, auto keep) {
                read.prefetch(i);
                for (int k = 0; k < PARTS; ++k) partial.part[k] += keep(k, f(k, load(y + i + k * WIDTH)));
            });
            sum.add(partial);
        });
    }
    return sum;
}

ALWAYS_INLINE Vector squared(Vector d) { return d * d; }

// Statistics of the input over the steps from `begin` to `end`: those of the norm after the connection.
template <typename X>
void observe_currents(const Layer& layer, const Shape& shape, int64_t begin, int64_t end) {
    Sums sum = sum_input<X>(layer, shape, begin, end, [](int, Vector y) { return y; });
    write_statistics(layer.current, shape, begin, samples_of(shape) * (end - begin), sum, [&](const Lanes& mean) {
        return sum_input<X>(layer, shape, begin, end, [&](int k, Vector y) { return squared(y - mean.part[k]); });
    });
}

// Statistics of every step of the input by itself.
inline void observe(const Layer& layer, const Tile& tile, float*) {
    Shape shape(tile);
    for (int64_t t = 0; t < layer.steps; ++t) observe_currents<float>(layer, shape, t, t + 1);
}

// The currents of a segment at a step, block by block: norm(y) + shortcut.
template <typename X, bool Normed, bool Shortcut>
struct Input {
    Reader<X> read, read_shortcut;
    const Affine& norm;
    const float *y = nullptr, *extra = nullptr;

    Input(const Layer& layer, const Shape& shape, const Affine& n, int64_t t)
        : read(shape, layer.input, t * layer.input_step),
          read_shortcut(shape, Shortcut ? layer.shortcut : layer.input, t * layer.shortcut_step), norm(n) {}

    void at(int64_t first, int64_t n) {
        y = read(first, n);
        if constexpr (Shortcut) extra = read_shortcut(first, n);
    }
    void prefetch(int64_t i) const {
        read.prefetch(i);
        if constexpr (Shortcut) read_shortcut.prefetch(i);
    }
    Vector operator()(int64_t i, int k) const {
        Vector x = load(y + i + k * WIDTH);
        if constexpr (Normed) x = norm(k, x);
        if constexpr (Shortcut) x = x + load(extra + i + k * WIDTH);
        return x;
    }
};

// The gradient of the input by these statistics: (input - mean) * gain + shift, a gain and a shift for each step.
inline void observe_backward(const Layer& layer, const Tile& tile, float*) {
    Shape shape(tile);
    for (int64_t t = 0; t < layer.steps; ++t) {
        const Affine map(layer.current, tile, t);
        Input<float, true, false> input(layer, shape, map, t);
        Writer<float> write(shape, layer.grad_input, t * layer.input_step);
        shape.segments([&](int64_t first, int64_t n) {
            input.at(first, n);
            float* to = write.target(first, n);
            blocks(n, [&](int64_t i, auto) {
                input.prefetch(i);
                write.prefetch(i);
                for (int k = 0; k < PARTS; ++k) store(to + i + k * WIDTH, input(i, k));
            });
            write.flush(to, first, n);
        });
    }
}

// `f(kind)` for the kind of input this layer has.
template <typename X, typename F>
auto with_input(const Layer& layer, F f) {
    if (layer.current.present)
        return layer.shortcut ? f((Input<X, true, true>*)nullptr) : f((Input<X, true, false>*)nullptr);
    return layer.shortcut ? f((Input<X, false, true>*)nullptr) : f((Input<X, false, false>*)nullptr);
}

ALWAYS_INLINE Vector charge(const Lanes& decay, int k, Vector v, Vector x) { return v * decay.part[k] + x; }

ALWAYS_INLINE Vector reset(const Layer& layer, Vector u, Vector spike) {
    return layer.hard ? u * (1.f - spike) : u - float(layer.threshold) * spike;
}

ALWAYS_INLINE Vector fire(const Step& step, int k, Vector u) {
    return select(step.norm(k, u) > step.threshold.part[k], fill(1.f), fill(0.f));
}

// The potential at rest, or the one handed over.
inline void begin(const Layer& layer, const Shape& shape, int64_t first, int64_t n, float* v) {
    Reader<float> read(shape, layer.v, 0);
    __builtin_memcpy(v, read(first, n), std::size_t(n) * sizeof(float));
}

// All steps of a segment before the next one, where no statistic is to be taken: the potential stays
// in the first cache. `see(t, first, n)` gives, for each step, a function of the block: (i, k, u, spike).
template <typename X, typename Seer>
void walk(const Layer& layer, const Shape& shape, const BySteps<Affine>& currents, const BySteps<Step>& steps,
          Seer& seer) {
    const Lanes decay = decays(layer, shape.tile);
    with_input<X>(layer, [&](auto* kind) {
        using In = std::remove_pointer_t<decltype(kind)>;
        float v[SEGMENT + LANES] = {};
        shape.segments([&](int64_t first, int64_t n) {
            begin(layer, shape, first, n, v);
            for (int64_t t = 0; t < layer.steps; ++t) {
                const Step& step = steps(t);
                In input(layer, shape, currents(t), t);
                input.at(first, n);
                seer.begin(t, first, n);
                blocks(n, [&](int64_t i, auto) {
                    input.prefetch(i);
                    seer.prefetch(i);
                    for (int k = 0; k < PARTS; ++k) {
                        float* at = v + i + k * WIDTH;
                        Vector u = charge(decay, k, load(at), input(i, k)), spike = fire(step, k, u);
                        seer(i, k, u, spike);
                        store(at, reset(layer, u, spike));
                    }
                });
                seer.end(first, n);
            }
            seer.last(v, first, n);
        });
    });
}

// The charged potentials of a step for the whole tile, and their sum.
template <typename X>
Sums charge_tile(const Layer& layer, const Shape& shape, const Affine& current, const Lanes& decay, int64_t t,
                 float* v) {
    return with_input<X>(layer, [&](auto* kind) {
        std::remove_pointer_t<decltype(kind)> input(layer, shape, current, t);
        Sums sum;
        shape.segments([&](int64_t first, int64_t n) {
            input.at(first, n);
            Lanes partial;
            blocks(n, [&](int64_t i, auto keep) {
                input.prefetch(i);
                for (int k = 0; k < PARTS; ++k) {
                    float* at = v + first + i + k * WIDTH;
                    Vector u = charge(decay, k, load(at), input(i, k));
                    store(at, u);
                    partial.part[k] += keep(k, u);
                }
            });
            sum.add(partial);
        });
        return sum;
    });
}

inline void observe_potentials(const Layer& layer, const Shape& shape, int64_t t, const Sums& sum, const float* u) {
    write_statistics(layer.potential, shape, t, samples_of(shape), sum, [&](const Lanes& mean) {
        Sums square;
        for (int64_t first = 0; first < shape.count; first += SEGMENT) {
            Lanes partial;
            blocks(smaller(SEGMENT, shape.count - first), [&](int64_t i, auto keep) {
                for (int k = 0; k < PARTS; ++k)
                    partial.part[k] += keep(k, squared(load(u + first + i + k * WIDTH) - mean.part[k]));
            });
            square.add(partial);
        }
        return square;
    });
}

// Writes spikes and the last potential as they come.
template <typename X>
struct Record {
    const Layer& layer;
    const Shape& shape;
    Writer<X> write;
    float* spikes = nullptr;

    Record(const Layer& l, const Shape& s) : layer(l), shape(s), write(s, l.spikes, 0) {}

    void begin(int64_t t, int64_t first, int64_t n) {
        write.base = pointer<X>(layer.spikes) + t * layer.rows * layer.groups * layer.inner + shape.tile.offset;
        spikes = write.target(first, n);
    }
    void prefetch(int64_t i) const { write.prefetch(i); }
    void operator()(int64_t i, int k, Vector, Vector spike) { store(spikes + i + k * WIDTH, spike); }
    void end(int64_t first, int64_t n) { write.flush(spikes, first, n); }
    void last(const float* v, int64_t first, int64_t n) {
        Writer<float> write_last(shape, layer.v_last, 0);
        write_last.flush(v, first, n);
    }
};

template <typename X>
void forward(const Layer& layer, const Tile& tile, float* v) {
    Shape shape(tile);
    if (layer.current.batch) observe_currents<X>(layer, shape, 0, input_steps(layer));
    const BySteps<Affine> currents = current_maps(layer, tile);
    Record<X> record(layer, shape);
    if (!layer.potential.batch) return walk<X>(layer, shape, currents, firing_steps(layer, tile), record);

    const Lanes decay = decays(layer, tile);
    shape.segments([&](int64_t first, int64_t n) { begin(layer, shape, first, n, v + first); });
    for (int64_t i = shape.count; i < padded(tile); ++i) v[i] = 0.f;
    for (int64_t t = 0; t < layer.steps; ++t) {
        Sums sum = charge_tile<X>(layer, shape, currents(t), decay, t, v);
        observe_potentials(layer, shape, t, sum, v);
        const Step step(layer, tile, t);
        shape.segments([&](int64_t first, int64_t n) {
            record.begin(t, first, n);
            blocks(n, [&](int64_t i, auto) {
                record.prefetch(i);
                for (int k = 0; k < PARTS; ++k) {
                    float* at = v + first + i + k * WIDTH;
                    Vector u = load(at), spike = fire(step, k, u);
                    record(i, k, u, spike);
                    store(at, reset(layer, u, spike));
                }
            });
            record.end(first, n);
        });
    }
    shape.segments([&](int64_t first, int64_t n) { record.last(v + first, first, n); });
}
