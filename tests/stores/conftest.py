"""A bank with its stores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.stores.mysql_database import new_database
from tests.system.conftest import Installation

if TYPE_CHECKING:
    from collections.abc import Callable

    from deploy.local.kafka import Kafka
    from deploy.local.mariadb import MariaDB


@pytest.fixture(scope="module")
def bank(
    kafka: Kafka, mariadb: MariaDB, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Installation]:
    """Makes an installation of its own, with topics and an empty database up to date."""

    def make() -> Installation:
        made = Installation(kafka.bootstrap, tmp_path_factory.mktemp("bank"))
        made.environment["STREAMBANK_MYSQL_URL"] = new_database(mariadb)
        for command in (("topics", "apply"), ("stores", "migrate")):
            done = made.pipeline(*command)
            assert done.returncode == 0, done.stderr
        return made

    return make
