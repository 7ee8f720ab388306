"""Settings in the environment: those of ours, and what others put there under our name."""

import pytest

from elytron.config_sources import load
from elytron.errors import InvalidSetting


def test_an_unknown_setting_in_the_environment_is_told_too():
    with pytest.raises(
        InvalidSetting,
        match=r"unknown setting `queue_maxx` .*ELYTRON_QUEUE_MAXX.*did you mean `queue_m",
    ):
        load(environ={"ELYTRON_QUEUE_MAXX": "1"})


@pytest.mark.parametrize(
    "name",
    [
        "ELYTRON_PORT",
        "ELYTRON_PORT_8765_TCP_ADDR",
        "ELYTRON_SERVICE_HOST",
        "ELYTRON_SERVICE_PORT_HTTP",
        "ELYTRON_MEMORY_PORT",  # near `memory_weight`, and yet a service's
        "ELYTRON_TOKEN",
        "ELYTRON_",
    ],
)
def test_what_is_in_the_environment_for_others_is_left_alone_and_told_in_the_log(name, caplog):
    caplog.set_level("INFO", logger="elytron.config")
    assert load(environ={name: "tcp://10.0.0.1:8765", "ELYTRON_QUEUE_MAX": "7"}).queue_max == 7
    assert name in caplog.text
    assert "10.0.0.1" not in caplog.text  # it may be a secret
