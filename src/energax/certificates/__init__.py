"""What is proved of directed nets before they are run: that they settle, how fast, and that they learn."""

from energax.certificates.alignment import Alignment as Alignment
from energax.certificates.alignment import bound_alignment as bound_alignment
from energax.certificates.alignment import certify_alignment as certify_alignment
from energax.certificates.alignment import is_cooperative as is_cooperative
from energax.certificates.alignment import least_cosine as least_cosine
from energax.certificates.certify import Certificate as Certificate
from energax.certificates.certify import certify as certify
from energax.certificates.keep import KeepSigns as KeepSigns
from energax.certificates.keep import KeepSymmetric as KeepSymmetric
from energax.certificates.keep import weaker as weaker
from energax.certificates.projection import AbstractProjection as AbstractProjection
from energax.certificates.projection import CapFeedback as CapFeedback
from energax.certificates.projection import CapIncoming as CapIncoming
from energax.certificates.projection import CapOutflow as CapOutflow
from energax.certificates.projection import KeepPositive as KeepPositive
from energax.certificates.projection import move_inside as move_inside
from energax.certificates.projection import project as project
