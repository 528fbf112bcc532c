import os

from hypothesis import settings

settings.register_profile("native", deadline=None, max_examples=60)
settings.register_profile("native-sanitizer", deadline=None, max_examples=25, database=None)
settings.load_profile(os.environ.get("NATIVE_HYPOTHESIS_PROFILE", "native"))
