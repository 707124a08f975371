"""The class's settings for The Littlest JupyterHub: copy to /opt/tljh/config/jupyterhub_config.d/book.py.

`tests/benchmarks/classroom.py` loads this same file. The memory and processor limits are set by `tljh-config`
(book/classroom.md has the commands).
"""

c = get_config()  # noqa: F821 -- JupyterHub's loader knows it

# Kernels talk over sockets in a folder that is the student's own. By default they listen on ports of the machine,
# and a neighbour's kernel can connect to such a port and read everything that the student's cells print.
c.Spawner.args = ["--KernelManager.transport=ipc"]
c.Spawner.environment.update(
    {
        # The folder of those sockets, made by the server with mode 0700. Their paths may have 107 bytes: a short one.
        "JUPYTER_RUNTIME_DIR": lambda spawner: f"/tmp/jupyter-{spawner.user.name}",
        # One thread for each student's torch: many students on few cores are faster so.
        "OMP_NUM_THREADS": "1",
    }
)
