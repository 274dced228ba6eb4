"""CodeCarbon's own classes, called as a library: energies and places come in as JSON, grams go out."""
import json
import logging
import sys

from codecarbon.core.emissions import Emissions
from codecarbon.core.units import Energy, Power, Time
from codecarbon.external.geography import CloudMetadata, GeoMetadata
from codecarbon.input import DataSource

logging.disable(logging.CRITICAL)
asked = json.load(sys.stdin)
source = DataSource()


def forced(use):
    """Joules as a counter gives them, times PUE as the tracker does it, at a given intensity."""
    energy = Energy.from_ujoules(use["joules"] * 1e6) * use["pue"]
    emissions = Emissions(source, force_carbon_intensity_g_co2e_kwh=use["intensity"])
    return emissions.get_private_infra_emissions(energy, GeoMetadata("USA")) * 1000


def modelled(use):
    """The same joules as a model gives them: a power over an hour."""
    energy = Energy.from_power_and_time(power=Power.from_watts(use["joules"] / 3600), time=Time.from_seconds(3600)) * use["pue"]
    emissions = Emissions(source, force_carbon_intensity_g_co2e_kwh=use["intensity"])
    return emissions.get_private_infra_emissions(energy, GeoMetadata("USA")) * 1000


def per_kwh(place):
    """Grams for one kWh by CodeCarbon's own tables, null where it has no figure for the place itself."""
    emissions, kwh, code = Emissions(source), Energy.from_energy(1), place["code"]
    if ":" in code:
        provider, region = code.split(":")
        known = source.get_cloud_emissions_data()
        if not ((known["provider"] == provider) & (known["region"] == region)).any():
            return None
        return emissions.get_cloud_emissions(kwh, CloudMetadata(provider, region)) * 1000
    if "-" not in code:
        if code not in source.get_global_energy_mix_data():
            return None
        return emissions.get_country_emissions(kwh, GeoMetadata(code)) * 1000
    country, _, zone = code.partition("-")
    region = zone if country in ("SE", "NO") else place["name"]
    iso = {"US": "USA", "CA": "CAN", "CN": "CHN", "SE": "SWE", "NO": "NOR"}[country]
    try:
        return emissions.get_region_emissions(kwh, GeoMetadata(iso, region=region)) * 1000
    except (KeyError, ValueError):
        return None


print(json.dumps({
    "joulesToKWh": Energy.JOULES_TO_KWH,
    "counted": [forced(u) for u in asked["uses"]],
    "modelled": [modelled(u) for u in asked["uses"]],
    "perKWh": {p["code"]: per_kwh(p) for p in asked["places"]},
}))
