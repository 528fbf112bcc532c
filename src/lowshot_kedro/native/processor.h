#ifndef LOWSHOT_PROCESSOR_H
#define LOWSHOT_PROCESSOR_H

#include <stdatomic.h>

/* One build has to run on any processor of its kind, and use the widest vectors that are there.
 * Which kernels run is chosen once, while the module is loaded, and can be chosen anew for tests
 * and benchmarks. Contraction into fused multiply-adds is off in the build, and integers are exact,
 * so all of them give the same bits. */
#if !defined(LOWSHOT_NO_VECTORS) && defined(__GNUC__)
#if defined(__x86_64__)
#define X86_VECTORS 1
#elif defined(__aarch64__) && defined(__ARM_NEON) && !defined(__ARM_BIG_ENDIAN)
#define ARM_VECTORS 1
#endif
#endif

/* What the compiler must know to make copies of loops and kernels for a set of instructions. */
#ifdef X86_VECTORS
#define TARGET_AVX2 __attribute__((target("avx2,popcnt")))
#define TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,popcnt")))
#define TARGET_VNNI __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,popcnt")))
#if (defined(__clang__) && __clang_major__ >= 12) || (!defined(__clang__) && __GNUC__ >= 11)
#define COMPILER_HAS_AVX_VNNI 1
#define TARGET_AVX_VNNI __attribute__((target("avx2,avxvnni,popcnt")))
#endif
#endif

/* The compiler's headers have to know these instructions before the processor is asked for them. */
#ifdef ARM_VECTORS
#if defined(__clang__)
#define TARGET_DOTPROD __attribute__((target("dotprod")))
#else
#define TARGET_DOTPROD __attribute__((target("arch=armv8.2-a+dotprod")))
#endif
#endif

extern _Atomic int chosen_kernels;

static inline int kernels_in_use(void) {
    return atomic_load_explicit(&chosen_kernels, memory_order_relaxed);
}

/* A loop that the compiler turns into vectors is written once, as an always inlined function
 * NAME_portable. This makes a copy of it for each width of vectors, and NAME, which calls the copy
 * for the kernels in use. On Arm every processor has the same vectors. */
#ifdef X86_VECTORS
#define FOR_EVERY_WIDTH(result, name, parameters, ...)                                             \
    static result name##_plain parameters { return name##_portable(__VA_ARGS__); }                 \
    TARGET_AVX2 static result name##_avx2 parameters { return name##_portable(__VA_ARGS__); }      \
    TARGET_AVX512 static result name##_avx512 parameters { return name##_portable(__VA_ARGS__); }  \
    static result name parameters {                                                                \
        switch (kernels_in_use()) {                                                                \
        case LOWSHOT_AVX512:                                                                       \
        case LOWSHOT_AVX512_VNNI:                                                                  \
            return name##_avx512(__VA_ARGS__);                                                     \
        case LOWSHOT_AVX2:                                                                         \
        case LOWSHOT_AVX_VNNI:                                                                     \
            return name##_avx2(__VA_ARGS__);                                                       \
        default:                                                                                   \
            return name##_plain(__VA_ARGS__);                                                      \
        }                                                                                          \
    }
#else
#define FOR_EVERY_WIDTH(result, name, parameters, ...)                                             \
    static result name parameters { return name##_portable(__VA_ARGS__); }
#endif

#endif
