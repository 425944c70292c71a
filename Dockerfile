# A slim image that serves ONNX files, without torch and Detectron2. See docs/serving.md.
#     docker build -t libra-d2-serve .
#     docker run -p 127.0.0.1:8000:8000 -v "$PWD/mine.onnx:/model.onnx:ro" libra-d2-serve
FROM python:3.12-slim

WORKDIR /src
COPY requirements-serve.txt .
RUN pip install --no-cache-dir -r requirements-serve.txt
COPY setup.py pyproject.toml README.md LICENSE NOTICE libra_d2_launcher.py ./
COPY libra_d2 libra_d2
RUN pip install --no-cache-dir --no-deps . && useradd --create-home server

# Threads share two pools of memory, so that less of it is kept for nothing.
ENV MALLOC_ARENA_MAX=2
USER server
WORKDIR /home/server
EXPOSE 8000
HEALTHCHECK CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health')"]
# 0.0.0.0 is inside the container: `docker run -p` decides who reaches it.
ENTRYPOINT ["libra-d2", "serve", "--host", "0.0.0.0"]
CMD ["--model", "/model.onnx"]
