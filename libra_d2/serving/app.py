"""The web application around a detector."""

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, AsyncIterator, Callable, Dict, List, Optional, Sequence

import numpy as np
from fastapi import FastAPI, HTTPException, Request
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, JSONResponse, Response

from ..errors import UserError
from ..inference.predictor import Predictor
from ..predictions.detections import Detections
from ..utils.messages import one_line, shown
from ..utils.threads import num_threads
from ..version import __version__
from .batching import BatchDetector, Batcher, Job, QueueFull
from .guard import Guard
from .limits import Limits
from .metrics import Metrics
from .page import render_page
from .parameters import Parameters, read_parameters
from .results import by_image, coco_results, picture
from .uploads import Upload, read_uploads

_PATHS = frozenset(("/", "/detect", "/health", "/ready", "/metrics"))
_PROTECTED = frozenset(("/detect", "/metrics"))
GONE = 499  # as in nginx: nobody reads the answer


def create_app(
    predictor: Predictor,
    *,
    limits: Optional[Limits] = None,
    token: str = "",
    max_batch: int = 8,
    max_delay: float = 0.005,
    draw_threshold: float = 0.5,
    name: str = "",
) -> FastAPI:
    """
    Build the application of `libra-d2 serve`, which any ASGI server can run.

    Args:
        predictor: :class:`libra_d2.serving.Predictor` or :class:`libra_d2.Predictor`. Its masks are
            not predicted.
        limits: by default `Limits()`.
        token: that clients must send; "" for none.
        max_batch: largest number of images of a batch.
        max_delay: seconds that an image may wait for others to form a batch.
        draw_threshold: detections with lower scores are not drawn, unless a request gives a
            threshold, and the page does not show them at first.
        name: of the model, for the page.
    """
    limits = limits or Limits()
    predictor.leave_out_masks()
    metrics = Metrics(max_batch)
    service = _Service(predictor, limits, metrics, max_batch, max_delay, draw_threshold)
    page = render_page(
        name=name,
        limits=limits,
        needs_token=bool(token),
        draw_threshold=max(draw_threshold, predictor.score_threshold),
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    # Their pages of documentation load scripts from other hosts.
    app = FastAPI(
        title="libra_d2", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None
    )
    app.add_middleware(
        Guard, limits=limits, metrics=metrics, paths=_PATHS, protected=_PROTECTED, token=token
    )

    @app.get("/")
    async def root(request: Request) -> Response:
        _refuse_parameters(request)
        return HTMLResponse(page.html, headers={"Content-Security-Policy": page.policy})

    @app.get("/health")
    async def health(request: Request) -> Response:
        _refuse_parameters(request)
        alive = service.batcher is not None and service.batcher.is_running
        return JSONResponse(
            {"status": "ok" if alive else "the detector has stopped", "version": __version__},
            200 if alive else 500,
        )

    @app.get("/ready")
    async def ready(request: Request) -> Response:
        _refuse_parameters(request)
        reason = service.why_not_ready()
        if reason:
            return JSONResponse({"status": reason}, 503, {"Retry-After": "1"})
        return JSONResponse({"status": "ready"})

    @app.get("/metrics")
    async def measured(request: Request) -> Response:
        _refuse_parameters(request)
        return Response(metrics.text(), media_type=metrics.content_type)

    @app.post("/detect")
    async def detect(request: Request) -> Response:
        try:
            return await service.answer(request)
        except ClientDisconnect:
            return Response(status_code=GONE)

    return app


def _refuse_parameters(request: Request) -> None:
    for name in request.query_params:
        raise HTTPException(422, f"{request.url.path} has no parameters, got {shown(name)}")


class _Service:
    """The state of an application."""

    def __init__(
        self,
        predictor: Predictor,
        limits: Limits,
        metrics: Metrics,
        max_batch: int,
        max_delay: float,
        draw_threshold: float,
    ):
        self.predictor, self.limits, self.metrics = predictor, limits, metrics
        self.classes = (predictor.class_names, predictor.category_ids)
        self.max_batch, self.max_delay = max_batch, max_delay
        self.draw_threshold = draw_threshold
        self.detector: Optional[BatchDetector] = None
        self.batcher: Optional[Batcher] = None
        self.threads: Optional[ThreadPoolExecutor] = None  # for small work

    async def start(self) -> None:
        # Each thread keeps memory of its own, so there are few of them.
        self.threads = ThreadPoolExecutor(num_threads(), "helper")
        self.detector = BatchDetector(self.predictor)
        self.batcher = Batcher(
            self.detector,
            max_batch=self.max_batch,
            max_delay=self.max_delay,
            max_queue=self.limits.max_queue,
            observe=self.metrics.observe_batch,
        )
        self.metrics.watch_queue(self.batcher.__len__)
        # The first detection is slow, for the library prepares itself.
        grey = np.full((64, 64, 3), 128, np.uint8)
        await self._in_thread(self.predictor, grey)
        await self._in_thread(self.predictor, [grey, grey])
        self.batcher.start()

    async def stop(self) -> None:
        assert self.batcher is not None and self.detector is not None and self.threads is not None
        await self.batcher.stop()
        self.detector.close()
        self.batcher = None
        self.threads.shutdown()

    async def _in_thread(self, f: Callable, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.threads, f, *args)

    def why_not_ready(self) -> str:
        if self.batcher is None or not self.batcher.is_running:
            return "the detector does not run"
        return "too many images are waiting" if self.batcher.is_full else ""

    async def answer(self, request: Request) -> Response:
        try:
            parameters = read_parameters(
                request.query_params.multi_items(), self.predictor.score_threshold
            )
        except UserError as e:
            raise HTTPException(422, one_line(e)) from None
        if self.batcher is None or self.threads is None or self.batcher.is_full:
            raise self._busy()
        uploads = await read_uploads(request, self.limits, parameters, self.threads)
        if parameters.format == "picture" and len(uploads) > 1:
            raise HTTPException(
                422, f"format=picture must have one image, got {len(uploads)}. Send one by one"
            )
        found = await self._detect(request, uploads, parameters)
        threshold = parameters.score_threshold
        if threshold is None and parameters.format == "picture":
            threshold = self.draw_threshold
        if threshold is not None:
            found = [one.above(threshold) for one in found]
        number = sum(map(len, found))
        self.metrics.images.inc(len(found))
        self.metrics.detections.inc(number)
        request.state.logged.update(images=len(found), detections=number)
        if parameters.format == "picture":
            content = await self._in_thread(picture, uploads[0], found[0], *self.classes)
            return Response(content, media_type="image/jpeg")
        answer: Any = (
            coco_results(found, self.predictor.category_ids)
            if parameters.format == "coco"
            else by_image(uploads, found, *self.classes)
        )
        return JSONResponse(answer)

    async def _detect(
        self, request: Request, uploads: Sequence[Upload], parameters: Parameters
    ) -> List[Detections]:
        """Wait for the detections of all images of a request, as long as its client does."""
        assert self.batcher is not None
        jobs = [Job(upload.content, parameters.slicing) for upload in uploads]
        try:
            self.batcher.submit(jobs)
        except QueueFull:
            raise self._busy() from None
        start = time.monotonic()
        done: asyncio.Future[List[Any]] = asyncio.gather(
            *(job.result for job in jobs), return_exceptions=True
        )
        gone: asyncio.Future[Any] = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait(
                (done, gone), timeout=self.limits.timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if not done.done():
                if gone.done():
                    raise ClientDisconnect
                raise HTTPException(
                    503,
                    f"the detector has not answered within {self.limits.timeout:g} s",
                    {"Retry-After": str(self.batcher.retry_after())},
                )
        finally:
            gone.cancel()
            if not done.done():
                self.batcher.forget(jobs)
        request.state.logged["waited"] = round(time.monotonic() - start, 4)
        for upload, result in zip(uploads, done.result()):
            if isinstance(result, BaseException):
                raise _as_answer(result, f"{shown(upload.name)}: " if len(uploads) > 1 else "")
        return done.result()

    def _busy(self) -> HTTPException:
        seconds = 1 if self.batcher is None else self.batcher.retry_after()
        return HTTPException(503, str(QueueFull(seconds)), headers={"Retry-After": str(seconds)})


def _as_answer(error: BaseException, which: str) -> BaseException:
    if isinstance(error, MemoryError):
        return HTTPException(413, f"{which}there is not enough memory for this image")
    if isinstance(error, ValueError):
        text = one_line(error)
        return HTTPException(422, f"{which}{text.removeprefix('image: ')}")
    return error


async def _disconnected(request: Request) -> None:
    message: Dict[str, Any] = {}
    while message.get("type") != "http.disconnect":
        message = dict(await request.receive())
