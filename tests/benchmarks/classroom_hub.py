"""The JupyterHub of `classroom.py`: its configuration, loaded by `jupyterhub -f` with `CLASS_*` in the environment.

As The Littlest JupyterHub does, every student is a Unix user of their own with a home that nobody else may enter.
These users have a number and no entry in the password file, so nothing on the machine changes. Not being root,
everybody is the same user; then only what the hub itself guards is tested.
"""

from __future__ import annotations

import os
from pathlib import Path

from jupyterhub.spawner import SimpleLocalProcessSpawner

WORK = Path(os.environ["CLASS_WORK"])
FIRST_UID = int(os.environ["CLASS_FIRST_UID"])  # 0: all students are this user
NAMES = os.environ["CLASS_NAMES"].split()


class HomeSpawner(SimpleLocalProcessSpawner):
    """A process per student, under the student's own user number, in the student's own home."""

    home_dir_template = str(WORK / "home" / "{username}")

    def make_preexec_fn(self, name):
        home, uid = WORK / "home" / name, FIRST_UID + NAMES.index(name)
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if FIRST_UID:
            os.chown(home, uid, uid)

        def preexec():  # in the child, before the server
            if FIRST_UID:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
            os.umask(0o077)
            os.chdir(home)

        return preexec

    def user_env(self, env):
        env = super().user_env(env)
        # /tmp is everybody's here, so the kernels' sockets are in the home.
        return {**env, "LOGNAME": self.user.name, "JUPYTER_RUNTIME_DIR": f"{env['HOME']}/.run"}


c = get_config()  # noqa: F821
c.JupyterHub.bind_url = os.environ["CLASS_URL"]
c.JupyterHub.hub_port = int(os.environ["CLASS_HUB_PORT"])
c.JupyterHub.db_url = f"sqlite:///{WORK}/hub/hub.sqlite"
c.JupyterHub.cookie_secret_file = f"{WORK}/hub/cookie_secret"
c.ConfigurableHTTPProxy.command = [os.environ["CLASS_PROXY"]]
c.ConfigurableHTTPProxy.pid_file = f"{WORK}/hub/proxy.pid"
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{os.environ['CLASS_PROXY_PORT']}"
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = os.environ["CLASS_PASSWORD"]
c.Authenticator.allowed_users = set(NAMES)
c.JupyterHub.spawner_class = HomeSpawner
c.Spawner.cmd = [os.environ["CLASS_PYTHON"], "-m", "jupyterhub.singleuser"]
c.Spawner.default_url = "/lab"
c.Spawner.start_timeout = c.Spawner.http_timeout = 300  # two cores for all
c.Spawner.poll_interval = 5
load_subconfig(str(WORK / "tljh.py"))  # noqa: F821 -- a copy of deploy/tljh.py
if os.environ["CLASS_TRANSPORT"] == "tcp":
    c.Spawner.args = []
c.Spawner.environment.update(
    {
        # The pulled chapters meet the library that was pulled with them.
        "PYTHONPATH": lambda spawner: (
            f"{WORK}/home/{spawner.user.name}/{os.environ['CLASS_FOLDER']}"
        ),
        "JUPYTER_PATH": os.environ["CLASS_SHARE"],
        "JUPYTER_CONFIG_PATH": os.environ["CLASS_ETC"],
        "JUPYTERLAB_DIR": os.environ["CLASS_SHARE"] + "/lab",
        "GIT_CONFIG_GLOBAL": f"{WORK}/gitconfig",  # the book's address leads to a copy on this machine
    }
)
