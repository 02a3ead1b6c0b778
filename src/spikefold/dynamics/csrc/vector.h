// Vectors of the instruction set this is compiled for, through the compiler's vector extension, and what
// stands for a number in memory. Included by kernel.cpp inside the namespace of an instruction set.

#if defined(__AVX512F__)
constexpr int WIDTH = 16;
#elif defined(__AVX2__)
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif

typedef float Vector __attribute__((vector_size(WIDTH * 4)));
typedef int32_t Mask __attribute__((vector_size(WIDTH * 4)));

constexpr int PARTS = LANES / WIDTH;

#define ALWAYS_INLINE [[gnu::always_inline]] inline

ALWAYS_INLINE Vector load(const float* p) {
    Vector v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
inline void store(float* p, Vector v) { __builtin_memcpy(p, &v, sizeof v); }
ALWAYS_INLINE Vector fill(float x) { return Vector{} + x; }
ALWAYS_INLINE Vector select(Mask mask, Vector yes, Vector no) { return mask ? yes : no; }
ALWAYS_INLINE Vector magnitude(Vector x) { return (Vector)((Mask)x & 0x7fffffff); }

// A value for each lane.
struct Lanes {
    Vector part[PARTS];

    Lanes() : Lanes(0.f) {}
    explicit Lanes(float x) {
        for (Vector& v : part) v = fill(x);
    }
    explicit Lanes(const float* p) {
        for (int k = 0; k < PARTS; ++k) part[k] = load(p + k * WIDTH);
    }
};

inline float bits_to_float(uint32_t bits) {
    float x;
    __builtin_memcpy(&x, &bits, sizeof x);
    return x;
}
inline uint32_t float_to_bits(float x) {
    uint32_t bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    return bits;
}

struct BFloat16 {
    uint16_t bits;
};
struct Half {
    uint16_t bits;
};

inline float widen(float x) { return x; }
inline float widen(BFloat16 x) { return bits_to_float(uint32_t(x.bits) << 16); }
inline float widen(Half x) {
    // exponent and mantissa moved into place, the exponent's bias mended by a multiplication, which
    // also normalizes subnormals
    float scaled = bits_to_float(uint32_t(x.bits & 0x7fff) << 13) * bits_to_float(0x77800000);
    uint32_t special = (x.bits & 0x7c00) == 0x7c00 ? 0x7f800000 : 0;  // infinity and NaN
    return bits_to_float(float_to_bits(scaled) | special | uint32_t(x.bits & 0x8000) << 16);
}

// To nearest, ties to even; NaN stays NaN.
inline void narrow(float x, float& y) { y = x; }
inline void narrow(float x, BFloat16& y) {
    uint32_t bits = float_to_bits(x), rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    y.bits = uint16_t(x != x ? 0x7fc0 : rounded);
}
inline void narrow(float x, Half& y) {
    uint32_t bits = float_to_bits(x), sign = bits & 0x80000000u, size = bits ^ sign;
    uint32_t odd = (size >> 13) & 1;
    uint32_t normal = (size - 0x38000000u + 0xfff + odd) >> 13;
    // an addition whose last place is that of half's subnormals rounds to them
    uint32_t subnormal = float_to_bits(bits_to_float(size) + 0.5f) - 0x3f000000u;
    uint32_t infinite = size > 0x7f800000u ? 0x7e00 : 0x7c00;
    uint32_t half = size < 0x38800000u ? subnormal : (size < 0x47800000u ? normal : infinite);
    y.bits = uint16_t(half | sign >> 16);
}
