"""An application with Flask-Login, Flask-WTF, a database's datetimes and a form of pydantic."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import gevent
from flask import Flask, copy_current_request_context, g, request, session
from flask_login import (
    LoginManager,
    UserMixin,
    current_user,
    fresh_login_required,
    login_required,
    login_user,
)
from flask_wtf.csrf import CSRFProtect, generate_csrf
from pydantic import BaseModel, Field, ValidationError

from flask_chsk import Chsk

app = Flask(__name__)
app.secret_key = "for tests"
app.config["CHSK_NAIVE_DATETIMES"] = "UTC"
chsk = Chsk(app)
login_manager = LoginManager(app)
login_manager.login_view = "login"
csrf = CSRFProtect(app)


class User(UserMixin):
    def __init__(self, id: str) -> None:
        self.id = id


login_manager.user_loader(User)


@app.post("/login")
@csrf.exempt
def login() -> str:
    login_user(User("ann"))
    return str(generate_csrf())


class Order(BaseModel):
    count: int = Field(gt=0)


@chsk.errorhandler(ValidationError)
def invalid(ev: Any, error: ValidationError) -> Any:
    return [[one["loc"], one["msg"]] for one in error.errors()]


@chsk.on("order/add", parse=Order.model_validate)
@login_required
def add(ev: Any) -> Any:
    assert "seen" not in g
    g.seen = True
    return [current_user.get_id(), session["_fresh"], datetime(2026, 1, 1)]


@chsk.on("order/pay")
@fresh_login_required
def pay(ev: Any) -> str:
    return "paid"


@chsk.on("order/later")
def later(ev: Any) -> str:
    @copy_current_request_context
    def push() -> None:
        gevent.sleep(0.05)
        ev.push(["order/done", [request.path, session["_user_id"], current_user.get_id()]])

    gevent.spawn(push)
    return "later"
