// Currents, charge, statistics, normalize, fire, reset. Included by kernel.cpp.

// Statistics of the input over all steps (one, if it is the same at all): the norm after the connection.
template <typename X>
void observe_currents(const Layer& layer, const Shape& shape) {
    int64_t steps = layer.input_step ? layer.steps : 1;
    Sums sum;
    for (int64_t t = 0; t < steps; ++t) {
        Reader<X> read(shape, layer.input, t * layer.input_step);
        shape.segments([&](int64_t first, int64_t n) {
            const float* y = read(first, n);
            Lanes partial;
            blocks(n, [&](int64_t i, auto keep) {
                for (int k = 0; k < PARTS; ++k) partial.part[k] += keep(k, load(y + i + k * WIDTH));
            });
            sum.add(partial);
        });
    }
    auto squares = [&](const Lanes& mean) {
        Sums square;
        for (int64_t t = 0; t < steps; ++t) {
            Reader<X> read(shape, layer.input, t * layer.input_step);
            shape.segments([&](int64_t first, int64_t n) {
                const float* y = read(first, n);
                Lanes partial;
                blocks(n, [&](int64_t i, auto keep) {
                    for (int k = 0; k < PARTS; ++k) {
                        Vector d = keep(k, load(y + i + k * WIDTH) - mean.part[k]);
                        partial.part[k] += d * d;
                    }
                });
                square.add(partial);
            });
        }
        return square;
    };
    write_statistics(layer.current, shape, 0, layer.groups, samples_of(shape) * steps, sum, squares);
}

// u = decay v + norm(y) + shortcut for the whole tile; the sum of u.
template <typename X, bool Normed, bool Shortcut>
Sums charge_as(const Layer& layer, const Shape& shape, const Affine& norm, int64_t t, const float* v, float* u) {
    Reader<X> read(shape, layer.input, t * layer.input_step);
    Reader<X> read_shortcut(shape, Shortcut ? layer.shortcut : 0, t * layer.shortcut_step);
    Sums sum;
    shape.segments([&](int64_t first, int64_t n) {
        const float *y = read(first, n), *extra = Shortcut ? read_shortcut(first, n) : y;
        Lanes partial;
        blocks(n, [&](int64_t i, auto keep) {
            for (int k = 0; k < PARTS; ++k) {
                int64_t at = i + k * WIDTH;
                Vector x = load(y + at);
                if constexpr (Normed) x = norm(k, x);
                if constexpr (Shortcut) x = x + load(extra + at);
                Vector potential = load(v + first + at) * layer.decay + x;
                store(u + first + at, potential);
                partial.part[k] += keep(k, potential);
            }
        });
        sum.add(partial);
    });
    return sum;
}

template <typename X>
Sums charge(const Layer& layer, const Shape& shape, const Affine& norm, int64_t t, const float* v, float* u) {
    if (layer.current.present)
        return layer.shortcut ? charge_as<X, true, true>(layer, shape, norm, t, v, u)
                              : charge_as<X, true, false>(layer, shape, norm, t, v, u);
    return layer.shortcut ? charge_as<X, false, true>(layer, shape, norm, t, v, u)
                          : charge_as<X, false, false>(layer, shape, norm, t, v, u);
}

inline void observe_potentials(const Layer& layer, const Shape& shape, int64_t t, const Sums& sum, const float* u) {
    write_statistics(layer.potential, shape, t, layer.groups, samples_of(shape), sum, [&](const Lanes& mean) {
        Sums square;
        for (int64_t first = 0; first < shape.count; first += SEGMENT) {
            Lanes partial;
            blocks(smaller(SEGMENT, shape.count - first), [&](int64_t i, auto keep) {
                for (int k = 0; k < PARTS; ++k) {
                    Vector d = keep(k, load(u + first + i + k * WIDTH) - mean.part[k]);
                    partial.part[k] += d * d;
                }
            });
            square.add(partial);
        }
        return square;
    });
}

inline Vector reset(const Layer& layer, Vector u, Vector spike) {
    return layer.hard ? u * (1.f - spike) : u - layer.reset_by * spike;
}

// The potential at rest, or the one handed over.
inline void begin(const Layer& layer, const Shape& shape, float* v) {
    for (int64_t i = 0; i < padded(shape.tile); ++i) v[i] = 0.f;
    if (!layer.v) return;
    Reader<float> read(shape, layer.v, 0);
    shape.segments([&](int64_t first, int64_t n) {
        const float* from = read(first, n);
        for (int64_t i = 0; i < n; ++i) v[first + i] = from[i];
    });
}

template <typename X>
void forward(const Layer& layer, const Tile& tile, float* v) {
    Shape shape(tile);
    int64_t elements = layer.rows * layer.groups * layer.inner;
    if (layer.current.present && layer.current.batch) observe_currents<X>(layer, shape);
    Affine current(layer.current, tile, 0, layer.groups);
    Lanes threshold = thresholds(layer, tile);
    begin(layer, shape, v);
    for (int64_t t = 0; t < layer.steps; ++t) {
        Sums sum = charge<X>(layer, shape, current, t, v, v);
        if (layer.potential.batch) observe_potentials(layer, shape, t, sum, v);
        Affine norm(layer.potential, tile, t, layer.groups);
        Writer<X> write(shape, layer.spikes, t * elements);
        shape.segments([&](int64_t first, int64_t n) {
            float* spikes = write.target(first, n);
            blocks(n, [&](int64_t i, auto) {
                for (int k = 0; k < PARTS; ++k) {
                    float* at = v + first + i + k * WIDTH;
                    Vector u = load(at);
                    Vector spike = select(norm(k, u) > threshold.part[k], fill(1.f), fill(0.f));
                    store(spikes + i + k * WIDTH, spike);
                    store(at, reset(layer, u, spike));
                }
            });
            write.flush(spikes, first, n);
        });
    }
    Writer<float> write(shape, layer.v_last, 0);
    shape.segments([&](int64_t first, int64_t n) { write.flush(v + first, first, n); });
}
