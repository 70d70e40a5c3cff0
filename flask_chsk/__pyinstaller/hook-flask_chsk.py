"""What PyInstaller does not see by itself: packers, which are imported by name, and chsk.js."""

from PyInstaller.utils.hooks import collect_data_files, collect_submodules

hiddenimports = collect_submodules("flask_chsk.packers")
datas = collect_data_files("flask_chsk", includes=["static/*"])
