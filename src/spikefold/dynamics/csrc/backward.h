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
    void join(const Tile& tile) { sum.join(tile), product.join(tile); }
};

// Through the step function: grad_h, and what of grad_v passes the reset into u.
template <int Kind, bool Hard, bool Detach, typename X>
TwoSums through_step(const Layer& layer, const Shape& shape, const Step& step, int64_t t, const float* u, Held& held) {
    const Affine& norm = step.norm;
    const Lanes& threshold = step.threshold;
    const float scale = float(layer.scale), height = float(layer.height), window = float(layer.window);
    const float subtracted = float(layer.threshold);
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
                if constexpr (!Detach) grad = grad - grad_v * (Hard ? potential : fill(subtracted));
                grad = grad * derivative<Kind>(h - threshold.part[k], scale, height, window);
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
using ThroughStep = TwoSums (*)(const Layer&, const Shape&, const Step&, int64_t, const float*, Held&);

template <typename X, int Kind>
ThroughStep<X> through_step_of_kind(const Layer& layer) {
    if (layer.hard) return layer.detach_reset ? through_step<Kind, true, true, X> : through_step<Kind, true, false, X>;
    return layer.detach_reset ? through_step<Kind, false, true, X> : through_step<Kind, false, false, X>;
}

template <typename X>
ThroughStep<X> through_step_of(const Layer& layer) {
    switch (layer.shape) {
        case LOGISTIC: return through_step_of_kind<X, LOGISTIC>(layer);
        case BOX: return through_step_of_kind<X, BOX>(layer);
        case TRIANGLE: return through_step_of_kind<X, TRIANGLE>(layer);
        default: return through_step_of_kind<X, RATIONAL>(layer);
    }
}

// From the gradient of a normalized value to that of the value: scale (g - mean(g) - centered mean(g centered) / var).
struct ThroughNorm {
    const Affine& norm;
    bool batch;
    Lanes mean_grad, mean_product;

    ThroughNorm(const Affine& n, const Norm& of, const Tile& tile, int64_t t, const TwoSums& sums, int64_t samples)
        : norm(n), batch(of.batch) {
        if (!batch) return;
        float grad[LANES], product[LANES];
        for_lanes(tile, [&](int64_t l, int64_t group) {
            int64_t place = group - tile.group;
            grad[l] = float(sums.sum.lane[place] / double(samples));
            product[l] = float(sums.product.lane[place] / (spread_of(of, t, group) * double(samples)));
        });
        mean_grad = lanes(tile, [&](int64_t l) { return grad[l]; });
        mean_product = lanes(tile, [&](int64_t l) { return product[l]; });
    }

    Vector operator()(int k, Vector grad, Vector a) const {
        if (batch) grad = grad - mean_grad.part[k] - norm.centered(k, a) * mean_product.part[k];
        return norm.scale.part[k] * grad;
    }
};

// Added up over the steps that share them, of which this is the first or a later one.
inline void write_gradients(const Norm& norm, const Tile& tile, int64_t t, bool first, const TwoSums& sums) {
    auto add = [&](const Parameter& grad, int64_t group, double more) {
        if (grad) grad(t, group) = (first || grad.step ? 0.f : grad(t, group)) + float(more);
    };
    const Parameter grad_gain{norm.grad_gain, norm.gain.step}, grad_shift{norm.grad_shift, norm.shift.step};
    for_groups(tile, [&](int64_t l, int64_t group) {
        add(grad_gain, group, sums.product.lane[l] / __builtin_sqrt(spread_of(norm, t, group)));
        add(grad_shift, group, sums.sum.lane[l]);
    });
}

// From the currents' gradient, in scratch, to the input's: through the norm after the connection, at the steps
// from `begin` to `end`, at which it is the same.
template <typename X>
void through_current(const Layer& layer, const Norm& norm, const Shape& shape, const float* grads, int64_t size,
                     int64_t begin, int64_t end) {
    const Affine current(norm, shape.tile, begin);
    int64_t elements = layer.rows * layer.groups * layer.inner;
    TwoSums sums;
    for (int64_t t = begin; t < end; ++t) {
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
    sums.join(shape.tile);
    write_gradients(norm, shape.tile, begin, begin == 0, sums);
    ThroughNorm through(current, norm, shape.tile, begin, sums, samples_of(shape) * (end - begin));
    for (int64_t t = begin; t < end; ++t) {
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

// The potential left by the step before t, recomputed from what it was before firing.
struct Before {
    const Layer& layer;
    const float* potentials;  // of that step; none: the one handed over
    const Step& step;
    Reader<float> read;
    const float* v = nullptr;

    Before(const Layer& l, const Shape& shape, const float* held, int64_t size, const BySteps<Step>& steps, int64_t t)
        : layer(l), potentials(t ? held + (t - 1) * size : nullptr), step(steps(t ? t - 1 : 0)),
          read(shape, t ? 0 : l.v, 0) {}

    void at(int64_t first, int64_t n) { v = potentials ? potentials + first : read(first, n); }
    Vector operator()(int64_t i, int k) const {
        Vector u = load(v + i + k * WIDTH);
        return potentials ? reset(layer, u, fire(step, k, u)) : u;
    }
};

template <typename X>
void backward(const Layer& layer, const Tile& tile, float* scratch) {
    Shape shape(tile);
    const int64_t size = padded(tile), elements = layer.rows * layer.groups * layer.inner;
    const bool normed = layer.current.present, constant = !layer.input_step, learns = layer.grad_decay;
    const bool maps = constant && layer.current.varies();  // of one input: their gradients are added up after them
    Held held(scratch, size);
    const BySteps<Step> steps = firing_steps(layer, tile);
    const Lanes decay = decays(layer, tile);
    Keep keep{held.potentials, size};
    const BySteps<Affine> currents = current_maps(layer, tile);
    walk<X>(layer, shape, currents, steps, keep);

    for (int64_t i = 0; i < size; ++i) held.grad_v[i] = 0.f;
    if (layer.grad_v_last) {
        Reader<float> read(shape, layer.grad_v_last, 0);
        shape.segments([&](int64_t first, int64_t n) {
            const float* from = read(first, n);
            for (int64_t i = 0; i < n; ++i) held.grad_v[first + i] = from[i];
        });
    }
    Sums of_decay;
    // The currents' gradients take the place of the potentials that are no longer needed; all in the last
    // one's where the input is the same at all steps. Without a norm they are the input's own.
    for (int64_t t = layer.steps - 1; t >= 0; --t) {
        const Step& step = steps(t);
        float* u = held.potentials + t * size;
        TwoSums sums = through_step_of<X>(layer)(layer, shape, step, t, u, held);
        sums.join(tile);
        write_gradients(layer.potential, tile, t, t + 1 == layer.steps, sums);
        ThroughNorm through(step.norm, layer.potential, tile, t, sums, samples_of(shape));
        float* kept = held.potentials + (constant ? layer.steps - 1 : t) * size;
        const bool add = constant && t + 1 < layer.steps, direct = !normed && !constant;
        Writer<X> write(shape, direct ? layer.grad_input : layer.grad_shortcut, t * elements);
        Before before(layer, shape, held.potentials, size, steps, t);
        Reader<X> read(shape, layer.input, 0);
        TwoSums of_map;
        shape.segments([&](int64_t first, int64_t n) {
            float* to = write.target(first, n);
            if (learns) before.at(first, n);
            const float* y = maps ? read(first, n) : nullptr;
            Lanes partial, sum, product;
            blocks(n, [&](int64_t i, auto keep) {
                write.prefetch(i);
                for (int k = 0; k < PARTS; ++k) {
                    int64_t at = first + i + k * WIDTH;
                    Vector grad = load(held.grad_v + at) + through(k, load(held.grad_h + at), load(u + at));
                    if (learns) partial.part[k] += keep(k, grad * before(i, k));
                    store(held.grad_v + at, grad * decay.part[k]);
                    store(to + i + k * WIDTH, grad);
                    if (maps) {
                        sum.part[k] += keep(k, grad);
                        product.part[k] += keep(k, grad * currents(t).centered(k, load(y + i + k * WIDTH)));
                        grad = grad * currents(t).scale.part[k];
                    }
                    if (!direct) store(kept + at, add ? load(kept + at) + grad : grad);
                }
            });
            if (learns) of_decay.add(partial);
            if (maps) {
                of_map.sum.add(sum);
                of_map.product.add(product);
            }
            write.flush(to, first, n);
        });
        if (maps) {
            of_map.join(tile);
            write_gradients(layer.current, tile, t, t + 1 == layer.steps, of_map);
        }
    }
    if (learns) {
        of_decay.join(tile);
        for_groups(tile, [&](int64_t l, int64_t group) {
            pointer<float>(layer.grad_decay)[group] = float(of_decay.lane[l]);
        });
    }
    const float* grads = held.potentials + (constant ? layer.steps - 1 : 0) * size;
    if (normed || constant) {
        const int64_t last = input_steps(layer), run = layer.current.varies() ? 1 : last;
        const Norm norm = maps ? Norm() : layer.current;
        for (int64_t t = 0; t < last; t += run) through_current<X>(layer, norm, shape, grads, size, t, t + run);
    }
    Writer<float> write(shape, layer.grad_v, 0);
    shape.segments([&](int64_t first, int64_t n) { write.flush(held.grad_v + first, first, n); });
}
