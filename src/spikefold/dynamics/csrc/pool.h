// Averages of 2x2 windows, which torch computes one by one, and their gradients. Included by kernel.cpp.

typedef float Four __attribute__((vector_size(16)));

ALWAYS_INLINE Four four_at(const float* from) {
    Four four;
    __builtin_memcpy(&four, from, sizeof four);
    return four;
}

// In torch's order: from zero, element after element, row after row.
template <typename V>
ALWAYS_INLINE V average_of(V above_left, V above_right, V below_left, V below_right) {
    return ((((V{} + above_left) + above_right) + below_left) + below_right) * 0.25f;
}

// What every second element of eight is, from the first on and from the second on.
struct Halves {
    Four left, right;

    explicit Halves(const float* from) {
        const Four a = four_at(from), b = four_at(from + 4);
        left = Four{a[0], a[2], b[0], b[2]};
        right = Four{a[1], a[3], b[1], b[3]};
    }
};

// The planes from first on; a last odd row or column falls away.
inline void average(const Planes& planes, int64_t first, int64_t count) {
    const int64_t height = planes.height / 2, width = planes.width / 2;
    for (int64_t plane = first; plane < first + count; ++plane) {
        const float* above = pointer<const float>(planes.input) + plane * planes.height * planes.width;
        float* to = pointer<float>(planes.output) + plane * height * width;
        for (int64_t row = 0; row < height; ++row, above += 2 * planes.width, to += width) {
            const float* below = above + planes.width;
            int64_t j = 0;
            for (; j + 4 <= width; j += 4) {
                const Halves a(above + 2 * j), b(below + 2 * j);
                const Four result = average_of(a.left, a.right, b.left, b.right);
                __builtin_memcpy(to + j, &result, sizeof result);
            }
            for (; j < width; ++j)
                to[j] = average_of(above[2 * j], above[2 * j + 1], below[2 * j], below[2 * j + 1]);
        }
    }
}

// The gradient of averages: a quarter of each, written to its four elements; zero in a last odd row or column.
inline void average_backward(const Planes& planes, int64_t first, int64_t count) {
    const int64_t height = planes.height / 2, width = planes.width / 2;
    for (int64_t plane = first; plane < first + count; ++plane) {
        const float* from = pointer<const float>(planes.input) + plane * height * width;
        float* above = pointer<float>(planes.output) + plane * planes.height * planes.width;
        const std::size_t bytes = std::size_t(planes.width) * sizeof(float);
        for (int64_t row = 0; row < height; ++row, above += 2 * planes.width, from += width) {
            int64_t j = 0;
            for (; j + 4 <= width; j += 4) {
                // zero added, as torch does: no zero of its gradients is negative
                const Four quarter = Four{} + four_at(from + j) * 0.25f;
                const Four left{quarter[0], quarter[0], quarter[1], quarter[1]};
                const Four right{quarter[2], quarter[2], quarter[3], quarter[3]};
                __builtin_memcpy(above + 2 * j, &left, sizeof left);
                __builtin_memcpy(above + 2 * j + 4, &right, sizeof right);
            }
            for (; j < width; ++j) above[2 * j] = above[2 * j + 1] = 0.f + from[j] * 0.25f;
            if (planes.width % 2) above[2 * width] = 0.f;
            __builtin_memcpy(above + planes.width, above, bytes);
        }
        if (planes.height % 2) __builtin_memset(above, 0, bytes);
    }
}
