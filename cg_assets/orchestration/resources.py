"""External resources of assets: the Parquet store, MLflow tracking, a compute device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from cg_assets.core.processes import end_after_worker
from cg_assets.settings import TRACKING, installation
from cg_assets.storage.sharing import follow, open_to_group

if TYPE_CHECKING:
    from cg_assets.orchestration.device import Device
    from cg_assets.registry.tracking import ModelTracking
    from cg_assets.storage.store import ParquetStore


class StoreResource(dg.ConfigurableResource):
    """The Parquet store of a home folder."""

    home: str

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Called in the process of each step before it begins."""
        end_after_worker()
        follow(Path(self.home))

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Called in the process of each step when it has ended."""
        open_to_group(Path(self.home))

    def open(self) -> ParquetStore:
        """The store itself."""
        from cg_assets.storage.store import ParquetStore

        return ParquetStore(Path(self.home))


class TrackingResource(dg.ConfigurableResource):
    """MLflow: a server, or the database and artifacts in the home folder."""

    home: str
    tracking_uri: str | None = None

    def open(self) -> ModelTracking:
        """The tracking client, after a check that it answers.

        Raises:
            TrackingError: the server does not answer.
        """
        from cg_assets.registry.tracking import ModelTracking

        tracking = ModelTracking(self.tracking_uri, Path(self.home))
        tracking.check()
        return tracking


class DeviceResource(dg.ConfigurableResource):
    """Leases one GPU per step, or the CPU."""

    home: str

    @contextmanager
    def lease(self) -> Iterator[Device]:
        """Hold a device until the block ends."""
        from cg_assets.orchestration.device import lease_device

        with lease_device(Path(self.home)) as device:
            yield device


def build_resources(folder: Path | None = None) -> dict[str, object]:
    """The resources of the assets; all state under `folder`, by default `$CG_ASSETS_HOME`.

    The address of a database may hold a password, so Dagster, which shows settings of resources, gets its variable.
    """
    own = installation()
    place = str(folder or own.home)
    return {
        "store": StoreResource(home=place),
        "tracking": TrackingResource(home=place, tracking_uri=dg.EnvVar(TRACKING) if own.tracking_uri else None),
        "device": DeviceResource(home=place),
    }
