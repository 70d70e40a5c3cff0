"""How many clients are let in at a time."""

from __future__ import annotations

import pytest

from flask_chsk.errors import Refused
from flask_chsk.server.admission import Admission


def test_so_many_are_let_in_at_a_time() -> None:
    admission = Admission(2)
    with admission.entering(), admission.entering():
        with pytest.raises(Refused) as refused, admission.entering():
            pass
        assert (refused.value.status, refused.value.retry_after) == (503, 1)
    with admission.entering(), admission.entering():
        pass


def test_one_that_fails_makes_room_too() -> None:
    admission = Admission(1)
    for _ in range(2):
        with pytest.raises(KeyError), admission.entering():
            raise KeyError
