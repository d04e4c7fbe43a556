"""What `demo.gradio_internals` relies on is still there in the installed Gradio."""

from __future__ import annotations

import inspect

import gradio as gr
import pytest
from gradio import processing_utils, route_utils, routes, utils

SEE = "an upgrade of Gradio moved it: see demo/gradio_internals.py"


def test_an_upload_s_folder_is_still_named_by_a_hash_of_the_module_s_class() -> None:
    source = inspect.getsource(route_utils.GradioMultiPartParser)
    assert "GradioUploadFile(" in source, f"uploads are made elsewhere; {SEE}"
    assert "sha" in inspect.getsource(route_utils.GradioUploadFile.__init__), SEE


@pytest.mark.parametrize("name", ["async_ssrf_protected_get", "async_ssrf_protected_download"])
def test_addresses_are_still_fetched_by_these_functions(name: str) -> None:
    assert callable(getattr(processing_utils, name, None)), f"{name} is gone; {SEE}"


def test_what_gradio_remembers_of_a_visit_is_still_where_it_was() -> None:
    with gr.Blocks() as page:
        page.queue()
    for name in (
        "pending_event_ids_session",
        "pending_messages_per_session",
        "event_ids_to_events",
    ):
        assert hasattr(page._queue, name), f"the queue has no {name}; {SEE}"
    assert all(isinstance(each, set) for each in page.temp_file_sets), SEE
    source = inspect.getsource(routes.App)
    assert "state_holder" in source, SEE


def test_samples_are_still_shown_where_they_are(tmp_path: object) -> None:
    assert hasattr(utils, "set_static_paths") and gr.set_static_paths, SEE
