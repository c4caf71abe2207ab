"""A project that forgot to include the package's URLs."""

urlpatterns: list[object] = []
