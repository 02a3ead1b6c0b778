// Derivatives of the surrogates at z = h - threshold; `SHAPES` in dynamics/_surrogate.py is the definition.
// Included by kernel.cpp inside the namespace of an instruction set.

// exp(-a) for a >= 0, to 2 ulp: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2]; 0 beyond 87.
ALWAYS_INLINE Vector exp_minus(Vector a) {
    Vector x = select(a > 87.f, fill(-87.f), -a);
    Vector shifted = x * 1.44269504f + 12582912.f;  // the integer lands in the low bits
    Vector n = shifted - 12582912.f;
    Vector r = x - n * 0.693359375f + n * 2.12194440e-4f;
    Vector p = fill(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.f;
    Vector power = (Vector)(((Mask)shifted << 23) + 0x3f800000);
    return select(a > 87.f, fill(0.f), p * power);
}

// sech²(y / 2) / 4 = e / (1 + e)², e = exp(-|y|): the sigmoid's derivative.
ALWAYS_INLINE Vector logistic_slope(Vector y) {
    Vector e = exp_minus(magnitude(y));
    return e / ((1.f + e) * (1.f + e));
}

// height * shape(scale * z) where |z| <= window, else 0.
template <int Shape>
ALWAYS_INLINE Vector derivative(Vector z, float scale, float height, float window) {
    Vector y = scale * z, slope;
    if constexpr (Shape == LOGISTIC) {
        slope = height * logistic_slope(y);
    } else if constexpr (Shape == BOX) {
        slope = fill(height);
    } else if constexpr (Shape == TRIANGLE) {
        Vector rest = 1.f - magnitude(y);
        slope = height * select(rest < 0.f, fill(0.f), rest);
    } else {
        slope = height / (1.f + y * y);
    }
    return window < __builtin_inff() ? select(magnitude(z) <= window, slope, fill(0.f)) : slope;
}
