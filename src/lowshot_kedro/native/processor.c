#include "native.h"

#if defined(ARM_VECTORS) && defined(__linux__)
#include <sys/auxv.h>
#ifndef HWCAP_ASIMDDP
#define HWCAP_ASIMDDP (1 << 20)
#endif
#endif

_Atomic int chosen_kernels = LOWSHOT_PLAIN;

#ifdef X86_VECTORS
static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt");
}

static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

static bool has_vnni(void) { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }

static bool has_avx_vnni(void) {
#ifdef COMPILER_HAS_AVX_VNNI
    return has_avx2() && __builtin_cpu_supports("avxvnni");
#else
    return false;
#endif
}
#endif

#ifdef ARM_VECTORS
static bool has_dot_products(void) {
#if defined(__ARM_FEATURE_DOTPROD)
    return true;
#elif defined(__linux__)
    return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#else
    return false;
#endif
}
#endif

int lowshot_has_kernels(int kernels) {
    switch (kernels) {
    case LOWSHOT_PLAIN:
        return 1;
#ifdef X86_VECTORS
    case LOWSHOT_AVX2:
        return has_avx2();
    case LOWSHOT_AVX_VNNI:
        /* AVX-512 has the same instruction in another encoding, so that these kernels can be tried
         * there. */
        return has_avx_vnni() || has_vnni();
    case LOWSHOT_AVX512:
        return has_avx512();
    case LOWSHOT_AVX512_VNNI:
        return has_vnni();
#endif
#ifdef ARM_VECTORS
    case LOWSHOT_NEON:
        return 1;
    case LOWSHOT_NEON_DOTPROD:
        return has_dot_products();
#endif
    default:
        return 0;
    }
}

int lowshot_use_kernels(int kernels) {
    if (!lowshot_has_kernels(kernels))
        return 0;
    atomic_store(&chosen_kernels, kernels);
    return 1;
}

int lowshot_kernels_in_use(void) { return kernels_in_use(); }

int lowshot_best_kernels(void) {
    /* Of the enumeration, which goes from the narrowest to the fastest. */
    int best = LOWSHOT_PLAIN;
    for (int kernels = LOWSHOT_PLAIN; kernels <= LOWSHOT_NEON_DOTPROD; kernels++)
        if (lowshot_has_kernels(kernels))
            best = kernels;
    return best;
}
