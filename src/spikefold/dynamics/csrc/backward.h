// Gradients of the input, the shortcut, the first potential, gains and shifts. Included by kernel.cpp.

// What the backward pass holds of a tile; potentials of all steps, recomputed from the input.
struct Held {
    float *grad_v, *grad_h, *potentials;
    Held(float* scratch, int64_t size) : grad_v(scratch), grad_h(scratch + size), potentials(scratch + 2 * size) {}
};

// Keeps the potentials before firing.
struct Keep {
    float* potentials;
    int64_t size;
    float* to = nullptr;

    void begin(int64_t t, int64_t first, int64_t) { to = potentials + t * size + first; }
    void prefetch(int64_t) const {}
    void operator()(int64_t i, int k, Vector u, Vector) { store(to + i + k * WIDTH, u); }
    void end(int64_t, int64_t) {}
    void last(const float*, int64_t, int64_t) {}
};

struct TwoSums {
    Sums sum, product;  // of gradients, and of gradients times the centered value
    void join(bool columns) { sum.join(columns), product.join(columns); }
};

// Through the step function: grad_h, and what of grad_v passes the reset into u.
template <int Kind, bool Hard, bool Detach, typename X>
TwoSums through_step(const Layer& layer, const Shape& shape, const Affine& norm, const Lanes& threshold, int64_t t,
                     const float* u, Held& held) {
    const float factor = surrogate_factor(Kind, layer.slope), slope = layer.slope;
    Reader<X> read(shape, layer.grad_spikes, t * layer.rows * layer.groups * layer.inner);
    TwoSums sums;
    shape.segments([&](int64_t first, int64_t n) {
        const float* grad_s = read(first, n);
        Lanes sum, product;
        blocks(n, [&](int64_t i, auto keep) {
            read.prefetch(i);
            for (int k = 0; k < PARTS; ++k) {
                int64_t at = first + i + k * WIDTH;
                Vector potential = load(u + at), grad_v = load(held.grad_v + at);
                Vector centered = norm.centered(k, potential);
                Vector h = centered * norm.scale.part[k] + norm.shift.part[k];
                Vector grad = load(grad_s + i + k * WIDTH);
                if constexpr (!Detach) grad = grad - grad_v * (Hard ? potential : fill(layer.threshold));
                grad = grad * derivative<Kind>(h - threshold.part[k], slope, factor);
                store(held.grad_h + at, grad);
                if constexpr (Hard)
                    store(held.grad_v + at, select(h > threshold.part[k], grad_v * 0.f, grad_v));
                sum.part[k] += keep(k, grad);
                product.part[k] += keep(k, grad * centered);
            }
        });
        sums.sum.add(sum);
        sums.product.add(product);
    });
    return sums;
}

template <typename X>
using ThroughStep = TwoSums (*)(const Layer&, const Shape&, const Affine&, const Lanes&, int64_t, const float*, Held&);

template <typename X, int Kind>
ThroughStep<X> through_step_of_kind(const Layer& layer) {
    if (layer.hard) return layer.detach_reset ? through_step<Kind, true, true, X> : through_step<Kind, true, false, X>;
    return layer.detach_reset ? through_step<Kind, false, true, X> : through_step<Kind, false, false, X>;
}

template <typename X>
ThroughStep<X> through_step_of(const Layer& layer) {
    switch (layer.surrogate) {
        case TANH: return through_step_of_kind<X, TANH>(layer);
        case RECTANGLE: return through_step_of_kind<X, RECTANGLE>(layer);
        case TRIANGLE: return through_step_of_kind<X, TRIANGLE>(layer);
        case SIGMOID: return through_step_of_kind<X, SIGMOID>(layer);
        default: return through_step_of_kind<X, ATAN>(layer);
    }
}

// From the gradient of a normalized value to that of the value: scale (g - mean(g) - centered mean(g centered) / var).
struct ThroughNorm {
    const Affine& norm;
    bool batch;
    Lanes mean_grad, mean_product;

    ThroughNorm(const Affine& n, const Norm& of, const Layer& layer, const Tile& tile, int64_t step, const TwoSums& sums,
                int64_t samples)
        : norm(n), batch(of.batch) {
        if (!batch) return;
        float grad[LANES], product[LANES];
        for_lanes(tile, [&](int64_t l, int64_t group) {
            grad[l] = float(sums.sum.lane[l] / double(samples));
            product[l] = float(sums.product.lane[l] / (spread_of(of, step, group, layer.groups) * double(samples)));
        });
        mean_grad = lanes(tile, [&](int64_t l) { return grad[l]; });
        mean_product = lanes(tile, [&](int64_t l) { return product[l]; });
    }

    Vector operator()(int k, Vector grad, Vector a) const {
        if (batch) grad = grad - mean_grad.part[k] - norm.centered(k, a) * mean_product.part[k];
        return norm.scale.part[k] * grad;
    }
};

// Added up over the steps.
inline void write_gradients(const Norm& norm, const Layer& layer, const Tile& tile, int64_t step, const TwoSums& sums) {
    if (!norm.grad_gain) return;
    for_groups(tile, [&](int64_t l, int64_t group) {
        double deviation = __builtin_sqrt(spread_of(norm, step, group, layer.groups));
        pointer<float>(norm.grad_gain)[group] += float(sums.product.lane[l] / deviation);
        pointer<float>(norm.grad_shift)[group] += float(sums.sum.lane[l]);
    });
}

// From the currents' gradient, in scratch, to the input's: through the norm after the connection.
template <typename X>
void through_current(const Layer& layer, const Shape& shape, const Affine& current, const float* grads, int64_t size) {
    int64_t elements = layer.rows * layer.groups * layer.inner, steps = input_steps(layer);
    TwoSums sums;
    for (int64_t t = 0; t < steps; ++t) {
        Reader<X> read(shape, layer.input, t * layer.input_step);
        shape.segments([&](int64_t first, int64_t n) {
            const float *y = read(first, n), *grad = grads + t * size + first;
            Lanes sum, product;
            blocks(n, [&](int64_t i, auto keep) {
                read.prefetch(i);
                for (int k = 0; k < PARTS; ++k) {
                    int64_t at = i + k * WIDTH;
                    Vector g = load(grad + at);
                    sum.part[k] += keep(k, g);
                    product.part[k] += keep(k, g * current.centered(k, load(y + at)));
                }
            });
            sums.sum.add(sum);
            sums.product.add(product);
        });
    }
    sums.join(shape.tile.columns);
    write_gradients(layer.current, layer, shape.tile, 0, sums);
    ThroughNorm through(current, layer.current, layer, shape.tile, 0, sums, samples_of(shape) * steps);
    for (int64_t t = 0; t < steps; ++t) {
        Reader<X> read(shape, layer.input, t * layer.input_step);
        Writer<X> write(shape, layer.grad_input, t * elements);
        shape.segments([&](int64_t first, int64_t n) {
            const float *y = read(first, n), *grad = grads + t * size + first;
            float* to = write.target(first, n);
            blocks(n, [&](int64_t i, auto) {
                read.prefetch(i);
                write.prefetch(i);
                for (int k = 0; k < PARTS; ++k) {
                    int64_t at = i + k * WIDTH;
                    store(to + at, through(k, load(grad + at), load(y + at)));
                }
            });
            write.flush(to, first, n);
        });
    }
}

template <typename X>
void backward(const Layer& layer, const Tile& tile, float* scratch) {
    Shape shape(tile);
    const int64_t size = padded(tile), elements = layer.rows * layer.groups * layer.inner;
    const bool normed = layer.current.present, constant = !layer.input_step;
    Held held(scratch, size);
    Affine current(layer.current, tile, 0, layer.groups);
    Lanes threshold = thresholds(layer, tile);
    Keep keep{held.potentials, size};
    walk<X>(layer, shape, current, threshold, keep);

    for (int64_t i = 0; i < size; ++i) held.grad_v[i] = 0.f;
    if (layer.grad_v_last) {
        Reader<float> read(shape, layer.grad_v_last, 0);
        shape.segments([&](int64_t first, int64_t n) {
            const float* from = read(first, n);
            for (int64_t i = 0; i < n; ++i) held.grad_v[first + i] = from[i];
        });
    }
    // The currents' gradients take the place of the potentials that are no longer needed; all in the last
    // one's where the input is the same at all steps. Without a norm they are the input's own.
    for (int64_t t = layer.steps - 1; t >= 0; --t) {
        Affine norm(layer.potential, tile, t, layer.groups);
        float* u = held.potentials + t * size;
        TwoSums sums = through_step_of<X>(layer)(layer, shape, norm, threshold, t, u, held);
        sums.join(tile.columns);
        write_gradients(layer.potential, layer, tile, t, sums);
        ThroughNorm through(norm, layer.potential, layer, tile, t, sums, samples_of(shape));
        float* kept = held.potentials + (constant ? layer.steps - 1 : t) * size;
        const bool add = constant && t + 1 < layer.steps, direct = !normed && !constant;
        Writer<X> write(shape, direct ? layer.grad_input : layer.grad_shortcut, t * elements);
        shape.segments([&](int64_t first, int64_t n) {
            float* to = write.target(first, n);
            blocks(n, [&](int64_t i, auto) {
                write.prefetch(i);
                for (int k = 0; k < PARTS; ++k) {
                    int64_t at = first + i + k * WIDTH;
                    Vector grad = load(held.grad_v + at) + through(k, load(held.grad_h + at), load(u + at));
                    store(held.grad_v + at, grad * layer.decay);
                    store(to + i + k * WIDTH, grad);
                    if (!direct) store(kept + at, add ? load(kept + at) + grad : grad);
                }
            });
            write.flush(to, first, n);
        });
    }
    const float* grads = held.potentials + (constant ? layer.steps - 1 : 0) * size;
    if (normed || constant) through_current<X>(layer, shape, current, grads, size);
    Writer<float> write(shape, layer.grad_v, 0);
    shape.segments([&](int64_t first, int64_t n) { write.flush(held.grad_v + first, first, n); });
}
