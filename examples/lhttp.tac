# A chat server as a Twisted application. Run it from the directory above:
#
#     twistd -n -y examples/lhttp.tac

from twisted.application.service import Application
from twisted.internet import reactor

from lhttp_tx import processor
from lhttp_tx.config import Config
from lhttp_tx.codec.limits import Limits
from lhttp_tx.service import LHTTPService


@processor("time")
def tell_time(request):
    """Answer with the server's monotonic time."""
    request.reply(f"{reactor.seconds():.3f}", headers=())


application = Application("lhttp")
server = LHTTPService(
    Config(listen=("tcp:8081:interface=127.0.0.1",), limits=Limits(message_size=16_384)),
    reactor=reactor,
    processors=[tell_time],
)
server.setServiceParent(application)
