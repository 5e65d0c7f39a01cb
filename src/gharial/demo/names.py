"""The words that made-up customers are made of."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.strip().splitlines())


FIRST_NAMES = _words(
    """
    Ada Aisha Alba Amara Anders Anja Anneli Aoife Arjun Astrid Aziz Beatriz Björn Bruno Carmen Chiara Chloé Daan
    Dalia Darya Diego Dilan Edda Ebba Eamon Elif Elin Emeka Enzo Esra Fatou Femke Finn Freya Gael Goran Greta Hanna
    Haruki Hedda Henrik Ibrahim Ilse Imani Inés Irena Isak Ivana Jamal Jasper Joana José Jun Kaia Karim Kenji Kofi
    Lars Leila Lena Liam Linnea Luca Lucía Magnus Maja Malik Marta Mateo Mei Mira Nadia Naomi Niamh Nils Noor Olga
    Omar Oskar Paloma Pavel Petra Priya Quentin Rafael Rana Renée Rosa Ruben Saga Samir Sanna Selma Sofía Stefan
    Tariq Tessa Thea Tomás Ulrik Uma Vera Viggo Wanda Wei Xenia Yara Yusuf Zofia Zoë
    """
)
LAST_NAMES = _words(
    """
    Abara Adeyemi Ahlgren Almeida Andersen Aranda Bakker Barros Baumann Becker Bergström Bianchi Bielak Boateng
    Brandt Calloway Carrasco Castellan Chandra Cvetko Dahlin Danso Dejong Delacroix Demir Dhillon Doyle Duarte
    Eklund Eriksen Escobar Falk Farah Fenwick Ferrari Fiala Fontaine Forsberg Gallo Garrido Georgiou Grabowski
    Greenwood Gupta Haddad Halloran Hartmann Hashimoto Holm Horvath Ibarra Ivanova Jankowski Jansson Juhl Kapoor
    Kaya Keller Khoury Kimura Kovac Kowalska Kristensen Lachance Laine Larsson Lefebvre Lindqvist Lombardi Maalouf
    Madsen Marchetti Marek Mbeki Mensah Moreau Moreno Nakamura Navarro Neumann Nilsen Novak Núñez Obi Okafor Olsen
    Ortega Osei Palmer Paredes Petrov Quist Ramaswamy Rasmussen Ricci Rojas Rossi Sandoval Santoro Schreiber Silva
    Sjöberg Solano Sørensen Strand Suzuki Tamm Thorne Tkachenko Toivonen Ueda Vasquez Verhoeven Vidal Wallin Weiss
    Whitlock Yamada Yilmaz Zamora Ziegler
    """
)
STREETS = _lines(
    """
    Harbour Lane
    Mill Road
    Station Street
    Linden Avenue
    Quarry Hill
    Weaver's Row
    Orchard Close
    Ferry Walk
    """
)
CITIES = _lines(
    """
    Northhaven
    Elmsford Bay
    Saltmarsh
    Grenna Falls
    Port Anselm
    Oldbridge
    Kestrel Point
    Wyndale
    """
)
