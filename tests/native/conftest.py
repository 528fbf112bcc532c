import os

from hypothesis import settings

# On a busy machine threads that spin while they wait for others take minutes. This is read when
# OpenMP is loaded, and has no effect if that has happened.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

settings.register_profile("native", deadline=None, max_examples=60)
settings.register_profile("native-sanitizer", deadline=None, max_examples=12, database=None)
settings.load_profile(os.environ.get("NATIVE_HYPOTHESIS_PROFILE", "native"))
