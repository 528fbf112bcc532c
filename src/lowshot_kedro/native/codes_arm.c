#include "kernels.h"

#ifdef ARM_VECTORS
#endif
