"""Sources of distillation targets: a live model, a cache on disk, or a server. Names load on first use."""

from typing import TYPE_CHECKING

from nbg_lightning.lazy import lazy_names

if TYPE_CHECKING:
    from nbg_lightning.teachers.build import build_cache as build_cache
    from nbg_lightning.teachers.cache import TeacherCache as TeacherCache
    from nbg_lightning.teachers.cache import open_cache as open_cache
    from nbg_lightning.teachers.cache_format import CachedTargets as CachedTargets
    from nbg_lightning.teachers.cache_format import CacheIdentity as CacheIdentity
    from nbg_lightning.teachers.live import LiveTeacher as LiveTeacher
    from nbg_lightning.teachers.request_cache import RequestCache as RequestCache
    from nbg_lightning.teachers.server import ServerTeacher as ServerTeacher
    from nbg_lightning.teachers.targets import FrozenModel as FrozenModel
    from nbg_lightning.teachers.targets import TargetSource as TargetSource
    from nbg_lightning.teachers.targets import TopKTargets as TopKTargets
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "build": ["build_cache"],
            "cache": ["TeacherCache", "open_cache"],
            "cache_format": ["CachedTargets", "CacheIdentity"],
            "live": ["LiveTeacher"],
            "request_cache": ["RequestCache"],
            "server": ["ServerTeacher"],
            "targets": ["FrozenModel", "TargetSource", "TopKTargets"],
        },
    )
