import os

import pytest
from hypothesis import settings

# On a busy machine threads that spin while they wait for others take minutes. This is read when
# OpenMP is loaded, and has no effect if that has happened.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

settings.register_profile("native", deadline=None, max_examples=60)
settings.register_profile("native-sanitizer", deadline=None, max_examples=12, database=None)
settings.load_profile(os.environ.get("NATIVE_HYPOTHESIS_PROFILE", "native"))


@pytest.fixture
def restored_kernels():
    """Has the test leave the kernels in use that it has found."""
    from lowshot_kedro import native

    before = native.kernels_in_use()
    yield
    native.use_kernels(before)


def pytest_generate_tests(metafunc):
    """Tests that ask for each_kernels run with all that this processor has."""
    if "each_kernels" in metafunc.fixturenames:
        from lowshot_kedro import native

        metafunc.parametrize("each_kernels", native.available_kernels(), indirect=True)


@pytest.fixture
def each_kernels(request, restored_kernels):
    """The name of the kernels in use."""
    from lowshot_kedro import native

    native.use_kernels(request.param)
    return request.param
