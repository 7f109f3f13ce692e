"""Names for containers that were given none: an adjective and a scientist's surname."""

from __future__ import annotations

import random
from collections.abc import Container

_ADJECTIVES = (
    "able agile alert amber ample ancient arctic artful astute autumn basic bold brave breezy brief bright brisk calm"
    " candid careful cheerful civil classic clear clever coastal cosmic cozy crimson crisp curious dapper daring deep"
    " deft eager early earnest easy elated electric elegant eminent even exact fair faithful famous fancy fast fearless"
    " festive fine firm fluent fond frank free fresh frosty gallant gentle gifted glad golden graceful grand grateful"
    " green handy happy hardy hasty hearty helpful honest humble idle ideal inventive jolly jovial joyful just keen kind"
    " lively logical loyal lucid lucky lunar magical mellow merry mighty mild misty modest nautical neat nimble noble"
    " novel open orderly patient peaceful playful plucky polished polite prompt proud quaint quick quiet radiant rapid"
    " ready robust rosy rural rustic serene sharp shiny silent silver simple sincere sleek smart snug sober solar solid"
    " spry stable steady stellar sturdy subtle sunny sweet swift tactful tender thrifty tidy tranquil trusty upbeat"
    " valiant vigilant vivid warm wise witty woven young zealous zesty"
)

_SURNAMES = (
    "abel airy albert ampere anning apgar archimedes aristarchus aryabhata avogadro babbage backus banach banneker"
    " bardeen bassi becquerel bell bernoulli berzelius bessel bhabha blackwell bohr boltzmann bolyai boole bose boyle"
    " brahe bragg brahmagupta bunsen burnell cannon cantor carnot carson cartan cauchy cavendish cerf chandrasekhar"
    " chatelet chebyshev church clarke cori coulomb crick curie cuvier dalton darwin dedekind democritus descartes"
    " dijkstra dirac doppler easley eddington edison einstein elion engelbart eratosthenes erdos euclid euler fahrenheit"
    " faraday fermat fermi feynman fibonacci fleming fourier franklin fresnel galilei galois galvani gauss germain gibbs"
    " godel goodall gosling haber hadamard halley hamilton harvey hawking heaviside heisenberg helmholtz henry hermite"
    " herschel hertz hilbert hipparchus hodgkin hooke hopper hoyle hubble huygens hypatia jacobi jacquard jenner johnson"
    " joliot joule kapitza kelvin kepler kernighan khayyam kirchhoff knuth koch kovalevskaya kowalevski lagrange lamarr"
    " landau laplace lavoisier leavitt legendre leibniz lie linnaeus liskov lister lorentz lovelace lyell mach maxwell"
    " mayer mccarthy mclean meitner mendel mendeleev michelson millikan minkowski mirzakhani napier neumann newton"
    " nightingale nobel noether oersted ohm oppenheimer ostrom pare pascal pasteur pauli pauling payne penrose perlman"
    " planck poincare poisson priestley ptolemy pythagoras ramanujan raman ramsay rayleigh riemann ritchie roentgen rubin"
    " russell rutherford sagan salk sanger schrodinger seaborg shannon somerville stokes tesla thales thompson thomson"
    " torricelli torvalds turing volta wallace watt weierstrass wiles wilson wright wu yalow yonath young yukawa zeno"
)

ADJECTIVES = _ADJECTIVES.split()
SURNAMES = _SURNAMES.split()


def random_name(taken: Container[str]) -> str:
    """A name that is not taken; the more often that fails, the more digits it gets."""
    suffix = ""
    while True:
        for _ in range(8):
            name = f"{random.choice(ADJECTIVES)}_{random.choice(SURNAMES)}{suffix}"
            if name not in taken:
                return name
        suffix += str(random.randrange(10))
