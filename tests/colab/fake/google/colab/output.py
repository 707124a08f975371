"""The part of `google.colab.output` that widgets use."""


class _Widgets:
    _installed_url = None


_widgets = _Widgets()


def enable_custom_widget_manager() -> None:
    """On Colab: load the widget manager that shows third-party widgets."""
    _widgets._installed_url = "https://widgets.invalid/manager.min.js"


def disable_custom_widget_manager() -> None:
    """On Colab: leave it out again."""
    _widgets._installed_url = None
